"""The API's own page in a real browser."""

from playwright.sync_api import Page, expect


def test_the_page_shows_the_document(page: Page) -> None:
    page.goto("/docs")

    expect(page.get_by_text("/api/v1/payments", exact=True).first).to_be_visible()
