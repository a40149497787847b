# Files of doc/.
