"""From run folders to tables: collect, match, average, and write what a paper prints."""
