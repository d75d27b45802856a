"""A reply's Markdown as lines of styled text: parsed, laid out for a width, highlighted.

Nothing here knows a widget, so that all of it can be done in a thread.
"""
