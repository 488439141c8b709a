"""After training: a page of pictures, comparisons of runs, and what curves say. The only room that uses matplotlib."""
