"""The review of a commit: does its result come out again?"""
