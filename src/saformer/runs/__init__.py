"""One run from start to end, and what is known of many."""
