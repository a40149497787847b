# Files of examples/.
