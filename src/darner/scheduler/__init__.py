"""Which peer loads from whom: answers every announced peer, asks seeds to load first, and keeps all others off the origin."""
