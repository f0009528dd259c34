"""Were pixels of photos copied?"""
