"""The hands: claim what is due, talk to the outside, record what was learned. It serves no client."""
