"""Are the hand-written gradients right? Checks of a layer, and of a configured network, by finite differences."""
