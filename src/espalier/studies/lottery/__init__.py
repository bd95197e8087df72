"""Studies of lottery tickets: is it the beginning or the mask that makes a sparse network train well?"""
