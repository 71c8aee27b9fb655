# bash completion of llmctl, written by `llmctl completion bash`: change that, not this file.

_llmctl_files() {
    [[ $cur == -* ]] || compopt -o default 2>/dev/null || COMPREPLY=($(compgen -f -- "$cur"))
}

_llmctl() {
    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}" at="" skip="" words="" word i
    COMPREPLY=()
    # "=" breaks words: `--file=na` comes as three of them.
    if [[ $cur == "=" ]]; then
        cur=""
    elif [[ $prev == "=" ]]; then
        prev="${COMP_WORDS[COMP_CWORD-2]}"
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${COMP_WORDS[i]}"
        if [[ $word == "=" ]]; then
            skip=1
            continue
        elif [[ -n $skip ]]; then
            skip=""
            continue
        fi
        case "$at $word" in
        " ask" | " chat" | " embed" | " route" | " route simulate" | " route test" | " route list" | " route explain" | " route reset" | " fallback" | " fallback drill" | " fallback show" | " cost" | " cost report" | " cost budget" | " cost prices" | " cost prices list" | " cost prices show" | " cost prices update" | " cost prices check" | " ledger" | " ledger path" | " ledger list" | " ledger show" | " ledger search" | " ledger export" | " ledger prune" | " ledger check" | " ledger backup" | " cache" | " cache purge" | " cache stats" | " cache list" | " cache show" | " cache why" | " cache bad" | " models" | " models check" | " models compare" | " models list" | " models show" | " models pull" | " config" | " config init" | " config path" | " config show" | " config get" | " config set" | " config check" | " config schema" | " keys" | " keys set" | " keys list" | " keys rm" | " doctor" | " help" | " completion")
            at="$at $word"
            ;;
        *" --config" | " ask -f" | " ask --file" | " ask --trace" | " chat -f" | " chat --file" | " embed -f" | " embed --file" | " embed -o" | " embed --output" | " route simulate --trace" | " fallback drill --junit" | " cost prices update --from" | " cost prices update --to" | " cache purge --document" | " models pull --from" | " ask -m" | " ask --model" | " ask --fallback" | " chat -m" | " chat --model" | " chat --fallback" | " embed -m" | " embed --model" | " route simulate -m" | " route simulate --model" | " route test -m" | " route test --model" | " route test --fallback" | " fallback drill --judge" | " fallback show --fallback" | " cost report --model" | " ledger list --model" | " ledger search --model" | " ledger export --model" | " cache purge --model" | " cache list --model" | " ask -s" | " ask --system" | " ask -a" | " ask --attach" | " ask --schema" | " ask -o" | " ask --option" | " ask --temperature" | " ask --max-tokens" | " ask --retries" | " ask --timeout" | " ask --max-wait" | " ask --max-cost" | " ask --session" | " ask --cache-doc" | " ask --tag" | " chat -s" | " chat --system" | " chat --session" | " chat -o" | " chat --option" | " chat --temperature" | " chat --max-tokens" | " chat --timeout" | " chat --max-cost" | " chat --tag" | " embed --dimensions" | " embed --batch" | " embed -j" | " embed --parallel" | " embed --tag" | " embed --timeout" | " route simulate --since" | " route simulate --until" | " route simulate --max-tokens" | " route simulate --max-wait" | " route simulate --outage" | " route simulate --slow" | " route simulate --speed-up" | " route simulate --seed" | " route test --max-tokens" | " route test --max-wait" | " route test -n" | " route test --repeat" | " route test --seed" | " fallback drill --drill" | " fallback drill --inject" | " fallback drill --suite" | " fallback drill --prompt" | " fallback drill --speed" | " fallback drill --seed" | " fallback drill --max-cost" | " fallback drill --expect-served-by" | " fallback drill --expect-path" | " fallback drill --max-seconds" | " fallback drill --expect-regex" | " fallback drill --expect-json" | " fallback drill --min-chars" | " cost report --by" | " cost report --since" | " cost report --until" | " cost report --timezone" | " cost report --tag" | " cost report --session" | " cost report --fail-over" | " cost prices list --provider" | " cost prices show --at" | " ledger list -n" | " ledger list --limit" | " ledger list --since" | " ledger list --until" | " ledger list --state" | " ledger list --tag" | " ledger search -n" | " ledger search --limit" | " ledger search --since" | " ledger search --until" | " ledger search --state" | " ledger search --tag" | " ledger export --since" | " ledger export --until" | " ledger export --state" | " ledger export --tag" | " ledger prune --older-than" | " cache purge --older-than" | " cache purge --match" | " cache stats --since" | " cache list -n" | " cache list --limit" | " models compare --since" | " ask --strategy" | " embed --strategy" | " route simulate --strategy" | " route simulate --compare" | " route test --strategy" | " ask --cache" | " chat --cache" | " ask --on-break" | " ask --color" | " chat --color" | " embed --format" | " embed --cache" | " ledger export --format" | " cache purge --kind" | " models compare --sort")
            skip=1
            ;;
        esac
    done
    case "$at $prev" in
        *" --config" | " ask -f" | " ask --file" | " ask --trace" | " chat -f" | " chat --file" | " embed -f" | " embed --file" | " embed -o" | " embed --output" | " route simulate --trace" | " fallback drill --junit" | " cost prices update --from" | " cost prices update --to" | " cache purge --document" | " models pull --from")
            _llmctl_files && return 0
            ;;
        " ask -m" | " ask --model" | " ask --fallback" | " chat -m" | " chat --model" | " chat --fallback" | " embed -m" | " embed --model" | " route simulate -m" | " route simulate --model" | " route test -m" | " route test --model" | " route test --fallback" | " fallback drill --judge" | " fallback show --fallback" | " cost report --model" | " ledger list --model" | " ledger search --model" | " ledger export --model" | " cache purge --model" | " cache list --model")
            words="fast smart cheap creative local auto"
            ;;
        " ask -s" | " ask --system" | " ask -a" | " ask --attach" | " ask --schema" | " ask -o" | " ask --option" | " ask --temperature" | " ask --max-tokens" | " ask --retries" | " ask --timeout" | " ask --max-wait" | " ask --max-cost" | " ask --session" | " ask --cache-doc" | " ask --tag" | " chat -s" | " chat --system" | " chat --session" | " chat -o" | " chat --option" | " chat --temperature" | " chat --max-tokens" | " chat --timeout" | " chat --max-cost" | " chat --tag" | " embed --dimensions" | " embed --batch" | " embed -j" | " embed --parallel" | " embed --tag" | " embed --timeout" | " route simulate --since" | " route simulate --until" | " route simulate --max-tokens" | " route simulate --max-wait" | " route simulate --outage" | " route simulate --slow" | " route simulate --speed-up" | " route simulate --seed" | " route test --max-tokens" | " route test --max-wait" | " route test -n" | " route test --repeat" | " route test --seed" | " fallback drill --drill" | " fallback drill --inject" | " fallback drill --suite" | " fallback drill --prompt" | " fallback drill --speed" | " fallback drill --seed" | " fallback drill --max-cost" | " fallback drill --expect-served-by" | " fallback drill --expect-path" | " fallback drill --max-seconds" | " fallback drill --expect-regex" | " fallback drill --expect-json" | " fallback drill --min-chars" | " cost report --by" | " cost report --since" | " cost report --until" | " cost report --timezone" | " cost report --tag" | " cost report --session" | " cost report --fail-over" | " cost prices list --provider" | " cost prices show --at" | " ledger list -n" | " ledger list --limit" | " ledger list --since" | " ledger list --until" | " ledger list --state" | " ledger list --tag" | " ledger search -n" | " ledger search --limit" | " ledger search --since" | " ledger search --until" | " ledger search --state" | " ledger search --tag" | " ledger export --since" | " ledger export --until" | " ledger export --state" | " ledger export --tag" | " ledger prune --older-than" | " cache purge --older-than" | " cache purge --match" | " cache stats --since" | " cache list -n" | " cache list --limit" | " models compare --since")
            return 0
            ;;
        " ask --strategy" | " embed --strategy" | " route simulate --strategy" | " route simulate --compare" | " route test --strategy")
            words="adaptive ordered simple-shuffle round-robin least-busy latency-based-routing usage-based-routing cost-based-routing"
            ;;
        " ask --cache" | " chat --cache")
            words="off exact canonical semantic refresh"
            ;;
        " ask --on-break")
            words="fail restart"
            ;;
        " ask --color" | " chat --color")
            words="auto always never"
            ;;
        " embed --format")
            words="json jsonl base64 npy"
            ;;
        " embed --cache")
            words="off exact refresh"
            ;;
        " ledger export --format")
            words="jsonl csv sqlite"
            ;;
        " cache purge --kind")
            words="exact canonical semantic vectors"
            ;;
        " models compare --sort")
            words="calls errors first speed latency cost price window used name"
            ;;
        *)
            case "$at" in
        "") words="ask chat embed route fallback cost ledger cache models config keys doctor help completion --version --config --debug -h --help" ;;
        " ask") words="-m --model -s --system -f --file -a --attach --schema -o --option --temperature --max-tokens --fallback --no-fallback --strategy --retries --timeout --max-wait --max-cost --session -c --continue --cache --cache-doc --on-break --strict-params --no-stdin --stream --no-stream -x --extract --copy --render --raw --color --json --explain --trace --dry-run --tag --no-log -q --quiet -v --verbose --config --debug -h --help" ;;
        " chat") words="-m --model -s --system -f --file --session -c --continue --list -o --option --temperature --max-tokens --fallback --no-fallback --timeout --max-cost --cache --render --raw --color --json --tag --no-log -q --quiet -v --verbose --config --debug -h --help" ;;
        " embed") words="-m --model -f --file --lines --jsonl --dimensions --batch -j --parallel --format -o --output --json --cache --tag --strategy --timeout --no-log -q --quiet --config --debug -h --help" ;;
        " route") words="simulate test list explain reset --config --debug -h --help" ;;
        " route simulate") words="-m --model --trace --since --until --all-models --strategy --compare --max-tokens --max-wait --outage --slow --speed-up --seed --json --config --debug -h --help" ;;
        " route test") words="-m --model --strategy --max-tokens --fallback --no-fallback --max-wait -n --repeat --seed --json --config --debug -h --help" ;;
        " route list") words="fast smart cheap creative local auto --all --json --config --debug -h --help" ;;
        " route explain") words="--json --config --debug -h --help" ;;
        " route reset") words="fast smart cheap creative local auto --all --json --config --debug -h --help" ;;
        " fallback") words="drill show --config --debug -h --help" ;;
        " fallback drill") words="fast smart cheap creative local auto --offline --live --drill --inject --matrix --suite --prompt --speed --seed --stream --no-stream --max-cost --expect-served-by --expect-path --max-seconds --expect-regex --expect-json --min-chars --judge --junit --json -v --verbose --config --debug -h --help" ;;
        " fallback show") words="fast smart cheap creative local auto --fallback --no-fallback --json --config --debug -h --help" ;;
        " cost") words="report budget prices --config --debug -h --help" ;;
        " cost report") words="--by --since --until --timezone --model --tag --session --drills --exact --fail-over --json --csv --config --debug -h --help" ;;
        " cost budget") words="--json --config --debug -h --help" ;;
        " cost prices") words="list show update check --config --debug -h --help" ;;
        " cost prices list") words="fast smart cheap creative local auto --provider --json --config --debug -h --help" ;;
        " cost prices show") words="fast smart cheap creative local auto --at --json --config --debug -h --help" ;;
        " cost prices update") words="--from --to --json --config --debug -h --help" ;;
        " cost prices check") words="--json --config --debug -h --help" ;;
        " ledger") words="path list show search export prune check backup --config --debug -h --help" ;;
        " ledger path") words="--config --debug -h --help" ;;
        " ledger list") words="-n --limit --since --until --model --state --tag --json --config --debug -h --help" ;;
        " ledger show") words="--json --config --debug -h --help" ;;
        " ledger search") words="-n --limit --since --until --model --state --tag --json --config --debug -h --help" ;;
        " ledger export") _llmctl_files; words="--format --since --until --model --state --tag --content --force --config --debug -h --help" ;;
        " ledger prune") words="--older-than --texts --dry-run --yes --json --config --debug -h --help" ;;
        " ledger check") words="--repair --json --config --debug -h --help" ;;
        " ledger backup") _llmctl_files; words="--force --config --debug -h --help" ;;
        " cache") words="purge stats list show why bad --config --debug -h --help" ;;
        " cache purge") words="--older-than --model --kind --document --match --all --dry-run --yes --json --config --debug -h --help" ;;
        " cache stats") words="--since --json --config --debug -h --help" ;;
        " cache list") words="-n --limit --model --json --config --debug -h --help" ;;
        " cache show") words="--json --config --debug -h --help" ;;
        " cache why") words="--json --config --debug -h --help" ;;
        " cache bad") words="--json --config --debug -h --help" ;;
        " models") words="check compare list show pull --config --debug -h --help" ;;
        " models check") words="fast smart cheap creative local auto --live --json --config --debug -h --help" ;;
        " models compare") words="--since --sort --json --csv --config --debug -h --help" ;;
        " models list") words="--providers --json --config --debug -h --help" ;;
        " models show") words="--json --config --debug -h --help" ;;
        " models pull") words="--from --json --config --debug -h --help" ;;
        " config") words="init path show get set check schema --config --debug -h --help" ;;
        " config init") words="--force --config --debug -h --help" ;;
        " config path") words="--json --config --debug -h --help" ;;
        " config show") words="--origin --json --config --debug -h --help" ;;
        " config get") words="--json --config --debug -h --help" ;;
        " config set") words="--unset --config --debug -h --help" ;;
        " config check") words="--json --config --debug -h --help" ;;
        " config schema") words="--markdown --config --debug -h --help" ;;
        " keys") words="set list rm --config --debug -h --help" ;;
        " keys set") words="openai azure anthropic gemini bedrock groq together mistral deepseek xai cohere cerebras ai21 dashscope dashscope_cn inception minimax minimax_cn moonshot moonshot_cn stepfun upstage volcengine xiaomi zai zhipu atlascloud baseten chutes clarifai cloudflare crusoe databricks deepinfra digitalocean doubleword featherless fireworks friendli gmi heroku huggingface hyperbolic ionet modelscope nebius novita nvidia ollama_cloud ovhcloud sambanova scaleway siliconflow siliconflow_cn stackit venice vultr wandb helicone openrouter poe requesty vercel ollama vllm lmstudio llamacpp sglang tgi localai jan koboldcpp llamafile lmdeploy mlx tabbyapi textgen xinference docker litellm local --json --config --debug -h --help" ;;
        " keys list") words="--all --json --config --debug -h --help" ;;
        " keys rm") words="openai azure anthropic gemini bedrock groq together mistral deepseek xai cohere cerebras ai21 dashscope dashscope_cn inception minimax minimax_cn moonshot moonshot_cn stepfun upstage volcengine xiaomi zai zhipu atlascloud baseten chutes clarifai cloudflare crusoe databricks deepinfra digitalocean doubleword featherless fireworks friendli gmi heroku huggingface hyperbolic ionet modelscope nebius novita nvidia ollama_cloud ovhcloud sambanova scaleway siliconflow siliconflow_cn stackit venice vultr wandb helicone openrouter poe requesty vercel ollama vllm lmstudio llamacpp sglang tgi localai jan koboldcpp llamafile lmdeploy mlx tabbyapi textgen xinference docker litellm local --json --config --debug -h --help" ;;
        " doctor") words="--live --json --config --debug -h --help" ;;
        " help") words="exit-codes config environment stdin --config --debug -h --help" ;;
        " completion") words="bash zsh fish --config --debug -h --help" ;;
            esac
            ;;
    esac
    for word in $words; do
        [[ $word == "$cur"* ]] && COMPREPLY+=("$word")
    done
    return 0
}

complete -F _llmctl llmctl
