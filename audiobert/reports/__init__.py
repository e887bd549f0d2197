"""How results look: tables, pages, and the paper's own figures beside ours."""
