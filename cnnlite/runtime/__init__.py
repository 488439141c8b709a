"""Runtime: blocks of work on threads, communication among ranks, and facts about the machine."""
