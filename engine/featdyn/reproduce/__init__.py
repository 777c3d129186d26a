"""Studies run again: what they claim, what is measured for it, and what a rule that was written before says of it.

A study is a file of :mod:`featdyn.reproduce.studies`, whose fields :mod:`featdyn.reproduce.study` explains.
:mod:`~featdyn.reproduce.runs` trains and measures, :mod:`~featdyn.reproduce.rules` judges,
:mod:`~featdyn.reproduce.page` shows.
"""
