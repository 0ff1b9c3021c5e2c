"""Small models with the interfaces of some whose code is on the Hub: what is saved in a folder beside the weights."""
