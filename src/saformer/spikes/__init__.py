"""What a network does on single images: firing rates, attention and spikes, as figures.

`record` takes them by hooks, and `figures` draws them.
"""
