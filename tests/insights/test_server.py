"""The app over HTTP, on a port that the system chooses."""

from __future__ import annotations

import asyncio
import concurrent.futures
import http.client
import time
import urllib.request

import pytest

from captum_transformer_lrp import insights
from captum_transformer_lrp.cli import main
from captum_transformer_lrp.errors import InputError
from captum_transformer_lrp.insights import server as serving


def get(server, path="/", **headers):
    """Return the status and the body of a request for exactly this path."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.putrequest("GET", path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        upgraded = response.status == 101
        return response.status, b"" if upgraded else response.read()
    finally:
        connection.close()


def until(condition, seconds=20.0):
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def test_the_page_is_there_and_needs_nothing_from_elsewhere(server):
    with urllib.request.urlopen(server.url) as response:
        page = response.read().decode()
    assert server.url == f"http://127.0.0.1:{server.port}/"
    assert "data from Python</title>" in page
    assert "https://cdn" not in page and "googleapis" not in page


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/../../../../etc/passwd",
        "/static/../../../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/static/extensions/panel/../../../../../../etc/passwd",
        "/static/extensions/panel/%2e%2e/%2e%2e/server.py",
        "/static//etc/passwd",
        "/components/../../etc/passwd",
    ],
)
def test_no_path_leads_to_files(server, path):
    status, body = get(server, path)
    assert status >= 400, path
    assert b"root:" not in body


def test_strange_addresses_are_answered(server):
    for query in (
        "?example=../x",
        "?method=%3Cscript%3E",
        "?page=" + "9" * 300,
        "?a=%ff",
    ):
        status, body = get(server, "/" + query)
        assert status == 200 and b"<script>'" not in body, query


def websocket(server, origin, **headers):
    return get(
        server,
        "/ws",
        Upgrade="websocket",
        Connection="Upgrade",
        Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==",
        Sec_WebSocket_Version="13",
        Sec_WebSocket_Protocol="bokeh, token",
        Origin=origin,
        **headers,
    )[0]


def test_only_pages_of_the_app_may_connect(server):
    assert websocket(server, f"http://127.0.0.1:{server.port}") != 403
    assert websocket(server, f"http://localhost:{server.port}") != 403
    for origin in (
        "http://evil.example",
        f"http://evil.example:{server.port}",
        f"http://127.0.0.1:{server.port + 1}",
        "null",
    ):
        assert websocket(server, origin) == 403, origin


def test_a_page_under_another_name_gets_nothing(server):
    """A site whose name was made to lead here: its host is its origin."""
    before = server.sessions
    for host in (f"evil.example:{server.port}", "evil.example", "127.0.0.1.evil", ""):
        for path in ("/", "/static/js/bokeh.min.js", "/nothing"):
            status, page = get(server, path, Host=host)
            assert status == 403 and f"served as {server.url}".encode() in page
        assert websocket(server, f"http://{host}", Host=host) == 403
    assert server.sessions == before
    for host in (f"LOCALHOST:{server.port}", f"127.0.0.1:{server.port}"):
        assert get(server, Host=host)[0] == 200


def test_fifty_requests_at_once_and_what_is_left_of_them(app, server):
    until(lambda: server.sessions == 0)
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        queries = [f"/?example={1 + i % 9}&method=chefer" for i in range(50)]
        found = list(pool.map(lambda q: get(server, q)[0], queries))
    assert found == [200] * 50
    assert get(server)[0] == 200
    assert server.sessions <= 51
    assert len(app.explanations) <= app.explanations.capacity
    until(lambda: server.sessions == 0)  # no browser came for them


def test_more_pages_than_the_app_takes(server, monkeypatch):
    until(lambda: server.sessions == 0)
    monkeypatch.setattr(serving, "MAX_SESSIONS", 2)
    for _ in range(4):
        assert get(server)[0] == 200
    assert server.sessions == 2
    until(lambda: server.sessions == 0)


def test_another_host_is_warned_of(app):
    with pytest.warns(UserWarning, match="there is no authentication"):
        running = app.start(host="0.0.0.0", port=0)
    with running:
        assert running.url == f"http://localhost:{running.port}/"
        assert f"127.0.0.1:{running.port}" in running.origins
        assert websocket(running, "http://evil.example") == 403


def test_further_origins(app):
    with app.start(port=0, origins=["example.org:443"]) as running:
        assert websocket(running, "https://example.org:443") != 403
        assert websocket(running, "https://example.org:444") == 403
    for origin in ("*", "https://example.org", "*.example.org:443"):
        with pytest.raises(InputError, match="expected an origin such as"):
            app.start(port=0, origins=[origin])


def test_a_port_that_is_taken(server, app):
    with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{server.port}"):
        app.start(port=server.port)
    with pytest.raises(InputError, match="a port from 0 to 65535"):
        app.start(port=70_000)
    with pytest.raises(InputError, match=r"cannot listen on no\.such\.host"):
        app.start(host="no.such.host.invalid", port=0)


def test_stopping_closes_the_port(app):
    running = app.start(port=0)
    assert get(running)[0] == 200
    running.stop()
    running.stop()
    with pytest.raises(ConnectionRefusedError):
        get(running)


def test_the_command_says_what_is_wrong(capsys, tmp_path):
    assert main(["insights", "built-in", str(tmp_path / "none.csv")]) == 2
    captured = capsys.readouterr()
    assert "there is no file" in captured.err and captured.err.count("\n") == 1
    assert captured.out == ""


def test_the_command_serves(monkeypatch, tmp_path, capsys):
    pytest.importorskip("transformers")
    (tmp_path / "a.csv").write_text("body,stars\nA warm film.,positive\n")
    seen = []

    def wait(self):
        seen.append((self.app, get(self)[0]))
        self.stop()

    monkeypatch.setattr(insights.Server, "wait", wait)
    words = ["--text-column", "body", "--label-column", "stars", "--methods", "chefer"]
    data = str(tmp_path / "a.csv")
    assert main(["insights", "built-in", data, *words, "--port", "0"]) == 0
    ((app, status),) = seen
    assert status == 200 and app.methods == ("chefer",)
    assert app.data.examples[0].label == "positive"
    assert "Insights is at http://127.0.0.1:" in capsys.readouterr().out


def test_a_notebook_shows_the_app(app):
    async def last_line_of_a_cell():  # a kernel has a running loop
        return app._repr_mimebundle_()

    bundle = asyncio.run(last_line_of_a_cell())
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "text/html" in data
    assert "insights" in data["text/html"]
