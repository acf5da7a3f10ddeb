"""`smoke URL`: does a deployment answer, and rightly?"""
