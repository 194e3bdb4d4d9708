"""The digits experiment: spoken strings of digits through the whole of Stepwell, heard and spoken by a small model within an hour.

make digits
"""
