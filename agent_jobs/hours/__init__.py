"""Quiet hours: when people may be spoken to.

calendar      hours as a value: spans of the day, also over midnight, holidays, clock changes; parses them
stated_hours  the hours that an organisation states for itself, a channel or a person: stores and finds them
deferral      applies them: defers turns, messages and deadlines to the next open moment
"""
