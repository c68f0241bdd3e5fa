"""Are the hand-written gradients right? Of one layer by finite differences, of a configured network layer by layer."""
