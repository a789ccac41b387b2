"""Serving an app: a thread, a port, and limits on what visitors can ask for.

Only the websocket carries data, and it is refused to pages of any other origin than the
host and port of the app; requests for another host are refused altogether. A visitor's
page is made when the browser has connected, so that a request alone costs little; such
sessions end after some seconds.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import warnings
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._packages import require
from ..errors import InputError
from .page import AppPage
from .uploads import MAX_BYTES

if TYPE_CHECKING:
    from .app import App

HOST = "127.0.0.1"
PORT = 5006

#: how many pages may be open at once, those included that were asked for just now
MAX_SESSIONS = 200
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PAGE = Path(__file__).parent / "templates" / "page.html"
_STATIC = "static/extensions/panel/"
_FULL = (
    f"Insights has {MAX_SESSIONS} pages open, which is as many as it takes. Close "
    "some, or try again in a minute."
)


class Server:
    """An app that is being served by a thread of its own.

    Args:
        app (App): What to serve.
        host (str, optional): The address to listen on. Default: ``"127.0.0.1"``
        port (int, optional): The port; 0 takes a free one. Default: 5006
        origins (Sequence[str], optional): Further origins of the websocket, as
            ``"host:port"``. Default: ()
        unused_lifetime (float, optional): Seconds after which a session without a
            browser ends. Default: 15

    Raises:
        InputError: The port is taken, or there is no such host.
    """

    def __init__(
        self,
        app: App,
        *,
        host: str = HOST,
        port: int = PORT,
        origins: Sequence[str] = (),
        unused_lifetime: float = 15.0,
    ) -> None:
        require("panel")
        self.app = app
        self.host = host
        self.port = _free_port(host, port)
        self._lifetime = round(1000 * unused_lifetime)
        self._sessions = 0
        self._failure: BaseException | None = None
        self._loop: Any = None
        self._server: Any = None
        self._ready = threading.Event()
        if host not in _LOOPBACK:
            warnings.warn(
                f"Insights listens on {host}: whoever reaches port {self.port} there "
                "can see the data and use the model, for there is no authentication",
                UserWarning,
                stacklevel=3,
            )
        self.origins = _origins(host, self.port, origins)
        self._thread = threading.Thread(
            target=self._run, name="insights server", daemon=True
        )
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise InputError(
                f"cannot listen on {host}:{self.port}: {self._failure}"
            ) from self._failure

    @property
    def url(self) -> str:
        """The address of the page."""
        host = {"0.0.0.0": "localhost", "::": "localhost"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    @property
    def sessions(self) -> int:
        """How many pages are open."""
        return self._sessions

    def show(self) -> None:
        """Open the page in this machine's browser."""
        webbrowser.open(self.url)

    def wait(self) -> None:
        """Return when the app is stopped; an interrupt from the keyboard stops it."""
        try:
            while self._thread.is_alive():
                self._thread.join(0.5)
        finally:
            self.stop()

    def stop(self) -> None:
        """Close the port and end the threads; a second call does nothing."""
        if self._thread.is_alive():
            self._loop.add_callback(self._end)
            self._thread.join()
        self.app.predictions.stop()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _end(self) -> None:
        self._server.stop()
        self._server.io_loop.stop()

    def _run(self) -> None:
        from panel.io.server import get_server
        from tornado.ioloop import IOLoop

        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        self._loop = IOLoop.current()
        try:
            self._server = get_server(
                {"/": self._page},
                port=self.port,
                address=self.host,
                websocket_origin=self.origins,
                loop=self._loop,
                title={"/": self.app.title},
                unused_session_lifetime_milliseconds=self._lifetime,
                check_unused_sessions_milliseconds=max(100, self._lifetime // 2),
                # Base64 takes a third more; what is larger still gets our message.
                websocket_max_message_size=4 * MAX_BYTES,
            )
            _refuse_other_hosts(self._server, self.origins, self.url)
            self._server.start()
        except OSError as error:
            self._failure = error
            self._loop.close(all_fds=True)
            return
        finally:
            self._ready.set()
        try:
            self._loop.start()
        finally:
            self._loop.close(all_fds=True)

    def _page(self) -> Any:
        """Return the page of one session, which fills when the browser connects."""
        pn = require("panel")
        if self._sessions >= MAX_SESSIONS:
            return pn.pane.HTML(f"<p>{_FULL}</p>")
        self._sessions += 1
        # Else Panel may link the styles of what is added later to its network of
        # servers; with this, the page needs nothing but this server.
        pn.state.curdoc.template_variables["dist_url"] = _STATIC
        root = pn.Column(sizing_mode="stretch_width", margin=0)
        template = pn.Template(_PAGE.read_text(encoding="utf-8"), location=True)
        template.add_panel("app", root)
        pages: list[AppPage] = []

        async def fill() -> None:
            location = pn.state.location

            def write(query: str) -> None:
                location.search = query

            page = AppPage(self.app, location.search, write)
            pages.append(page)
            root.objects = [page.layout]
            await page.open()

        def close(_: Any) -> None:
            self._sessions -= 1
            for page in pages:
                page.close()

        pn.state.onload(fill)
        pn.state.on_session_destroyed(close)
        return template


def _origins(host: str, port: int, further: Sequence[str]) -> list[str]:
    """Return the hosts and ports whose pages may open the websocket."""
    names = {host}
    if host in _LOOPBACK:
        names |= {"127.0.0.1", "localhost"}
    elif host in ("0.0.0.0", "::", ""):
        names = {"127.0.0.1", "localhost", socket.gethostname(), socket.getfqdn()}
    shown = (f"[{name}]" if ":" in name else name for name in sorted(names))
    for origin in further:
        if "*" in origin or "://" in origin or ":" not in origin:
            raise InputError(
                f"expected an origin such as 'example.org:443', got {origin!r}"
            )
    return [*(f"{name}:{port}" for name in shown), *further]


def _refuse_other_hosts(server: Any, origins: Sequence[str], url: str) -> None:
    """Answer no request for a host that is none of the app's origins.

    A site whose name was made to lead to this machine (DNS rebinding) is its own
    origin, so that a browser lets it read the answers.
    """
    from tornado.web import RequestHandler

    class Refused(RequestHandler):  # type: ignore[misc]
        """Says under which name the page is."""

        def prepare(self) -> None:
            """Answer whatever was asked."""
            self.set_status(403)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            self.finish(
                f"Insights is served as {url}. To reach it under another name, start "
                "it with --origin NAME:PORT.\n"
            )

    names = "|".join(re.escape(origin.rpartition(":")[0].lower()) for origin in origins)
    server._tornado.add_handlers(rf"(?!(?:{names})$).*", [(r".*", Refused)])


def _free_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0.

    Raises:
        InputError: There is no such port or host.
    """
    if not 0 <= port < 2**16:
        raise InputError(f"expected a port from 0 to 65535, got {port}")
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)
        family, kind, _, _, address = found[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        raise InputError(f"cannot listen on {host}:{port}: {error}") from error
