"""Redis: the queues of arq, the channel of settled payments, heartbeats. Everything in it may be lost at any moment."""
