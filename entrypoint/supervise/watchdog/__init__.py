"""Engines that live and do not get on, or go on without a process of their own."""
