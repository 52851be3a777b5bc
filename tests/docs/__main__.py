"""`make docs`: writes the generated pages."""

from tests.docs.pages import write_pages

write_pages()
