"""Lightning callbacks: results, progress."""
