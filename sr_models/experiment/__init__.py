"""The experiment of `mindgap`: Cases I to IV, the gap between them, and why it is there.

`evaluate` tests models in the cases and writes a table (`results`); `attribution` tests them with
differences of the real sensor turned off, and `gap` says what these amount to. `sr_models.report`
shows both.
"""
