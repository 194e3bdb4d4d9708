"""Training on real speech beside the hour of the digits: speakers that nothing learnt from, and read sentences.

make bench-speech
"""
