# Files of datasets/.
