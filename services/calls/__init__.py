"""Calls: conversations with agents over any transport, their briefs, recordings and replay.

`model`, `messages` and `live` are light; everything else is loaded when a call is prepared.
"""
