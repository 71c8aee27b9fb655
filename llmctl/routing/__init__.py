"""How we choose: pure functions and one machine. The clock, the dice and the state of the world are arguments."""
