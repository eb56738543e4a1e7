"""A browser for the page's tests: what it complains of, and every request that it makes, is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SOON = 220  # ms: earlier than 200 a key is taken for one that bounced


class Visit:
    """One person's tab, signed in."""

    def __init__(self, browser: Browser, address: str, name: str = "Ada", width: int = 1280, **settings: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 860}, **settings)
        self.page: Page = self.context.new_page()
        self.address, self.complaints, self.requests = address, [], []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.accept()))
        self.page.goto(address)
        if name:
            self.page.get_by_label("Your name").fill(name)
            self.page.keyboard.press("Enter")
            self.page.wait_for_selector("#main:not([data-state=loading])")

    @property
    def shown(self) -> str:
        """The alias of the pair on the screen; "" if there is none."""
        return self.page.get_attribute("#main", "data-pair") or ""

    @property
    def said(self) -> str:
        return self.page.locator("#said").inner_text()

    def press(self, key: str) -> str:
        """A vote or an undo by its key, once the pair has been there for a moment. -> the pair that comes then."""
        before = self.shown
        self.page.wait_for_timeout(SOON)
        self.page.keyboard.press(key)
        self.page.wait_for_selector(f'main:not([data-pair="{before}"])')
        return self.shown

    def close(self) -> None:
        self.context.close()
