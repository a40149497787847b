# Files of graph/.
