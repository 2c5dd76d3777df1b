"""The page's addresses over real HTTP: what works, and what is refused, logged and not written."""

from __future__ import annotations

import io
import logging
import re
import socket
import zipfile
from functools import partial

import numpy as np
import pytest
from PIL import Image

from lpips_sat.calibration.annotate.app import MAX_BODY

from .conftest import Client, Server, vote


@pytest.fixture
def site(make, serve, client):
    """A served study of 12 trials, its server, a client, and the address of the first rater."""
    study = make(12)
    server = serve(study)
    rater = server.store.raters()[0]
    return study, server, client(server), f"/r/{rater.token}"


# --- the way through


def test_votes_lead_through_the_study_and_resume_by_the_link(site, client):
    _, server, browser, at = site
    status, _, state = browser.ask("GET", f"{at}/state")
    assert (status, state["done"], state["total"]) == (200, 0, 12)
    assert [c["position"] for c in state["coming"]] == [0, 1]
    for i in range(5):
        status, _, state = browser.ask("PUT", f"{at}/votes/{i}", vote("right", i))
        assert (status, state["done"]) == (200, i + 1)
    _, _, again = client(server).ask("GET", f"{at}/state")
    assert again == state
    status, _, state = browser.ask("DELETE", f"{at}/votes/4")
    assert (status, state["done"]) == (200, 4)


def test_the_pictures_are_those_of_the_trial_on_the_sides_dealt(site):
    study, server, browser, at = site
    rater = server.store.raters()[0]
    seen = set()
    for position in range(2):
        item = server.store.item(rater, position)
        seen.add(item.swapped)
        sides = {"left": "ba"[not item.swapped], "ref": "ref", "right": "ab"[not item.swapped]}
        for side, name in sides.items():
            status, headers, data = browser.ask("GET", f"{at}/image/{position}/{side}")
            assert (status, headers["content-type"]) == (200, "image/png")
            shown = np.asarray(Image.open(io.BytesIO(data)))
            np.testing.assert_array_equal(shown, study.image(item.trial, name))


def test_same_or_different_has_two_pictures_and_other_answers(make, serve, client):
    server = serve(make(0, jnd=4))
    at = f"/r/{server.store.raters()[0].token}"
    browser = client(server)
    assert browser.ask("GET", f"{at}/state")[2]["coming"][0]["task"] == "jnd"
    assert browser.ask("GET", f"{at}/image/0/left")[0] == 200
    assert browser.ask("GET", f"{at}/image/0/ref")[0] == 404
    assert browser.ask("PUT", f"{at}/votes/0", vote("left"))[0] == 422
    assert browser.ask("PUT", f"{at}/votes/0", vote("same"))[2]["done"] == 1


def test_a_vote_that_is_sent_again_is_acknowledged_and_recorded_once(site):
    _, server, browser, at = site
    first = browser.ask("PUT", f"{at}/votes/0", vote())
    again = browser.ask("PUT", f"{at}/votes/0", vote())
    assert first[0] == again[0] == 200
    assert first[2] == again[2]
    assert len(server.store.votes()) == 1


def test_pages_and_their_files_load_without_anything_from_elsewhere(site):
    _, server, browser, at = site
    pages = [f"{at}/", f"/admin/{server.store.admin_token}/"]
    for page in pages:
        status, headers, data = browser.ask("GET", page)
        text = data.decode()
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert not re.search(r"https?:|//|<style|style=| on\w+=", text)
        assert "<script>" not in text
        for name in re.findall(r'static/([\w.]+)"', text):
            assert browser.ask("GET", f"/static/{name}")[0] == 200
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    assert browser.ask("GET", "/")[0] == 404


# --- the organiser


def test_the_organiser_sees_progress_adds_raters_and_exports(site, client):
    _, server, browser, at = site
    admin = f"/admin/{server.store.admin_token}"
    for i in range(3):
        browser.ask("PUT", f"{at}/votes/{i}", vote(nonce=i))
    status, _, added = browser.ask("POST", f"{admin}/raters", {"name": " Zoë "})
    assert (status, added["name"]) == (201, "Zoë")
    assert browser.ask("GET", f"/r/{added['token']}/state")[2]["total"] == 12
    _, _, found = browser.ask("GET", f"{admin}/progress")
    assert [(r["name"], r["done"]) for r in found["raters"]] == [
        ("rater 0", 3),
        ("rater 1", 0),
        ("Zoë", 0),
    ]
    assert found["raters"][0]["median_seconds"] == 1.5
    status, headers, data = browser.ask("GET", f"{admin}/export.zip")
    assert (status, headers["content-type"]) == (200, "application/zip")
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert {"judgements/votes.csv", "judgements/card.json"} <= set(names)
    assert "Zoë" not in data.decode("latin1")


def test_there_is_nothing_to_export_without_votes(site):
    _, server, browser, _ = site
    status, _, body = browser.ask("GET", f"/admin/{server.store.admin_token}/export.zip")
    assert (status, body["error"]) == (409, "no vote to export yet: none is in")


@pytest.mark.parametrize("name", ["", " ", "x" * 61, "a\nb", "\ud800", 3, None, ["a"], "rater 1"])
def test_names_that_are_none_or_taken_are_refused(site, name):
    _, server, browser, _ = site
    status, _, _ = browser.ask("POST", f"/admin/{server.store.admin_token}/raters", {"name": name})
    assert status == (409 if name == "rater 1" else 422)
    assert len(server.store.raters()) == 2


# --- what is refused


@pytest.fixture(scope="module")
def untouched(make):
    """A site that no test changes, since all that it is asked is refused."""
    server = Server(make(12))
    browser = Client(server.port)
    yield server, browser, f"/r/{server.store.raters()[0].token}"
    browser.close()
    server.stop()


@pytest.fixture
def refused(untouched, caplog):
    return partial(refuse, caplog, *untouched)


def refuse(caplog, server, browser, at, method, path, body=None, headers=None):
    """Ask for something that must be refused: logged, nothing written; returns the status."""
    before = server.store.votes(), server.store.raters(), server.store.undone()
    caplog.clear()
    with caplog.at_level(logging.WARNING, "lpips_sat.annotate"):
        status, sent, content = browser.ask(method, path.replace("AT", at), body, headers)
    assert (server.store.votes(), server.store.raters(), server.store.undone()) == before
    assert len(caplog.records) == 1
    line = caplog.records[0].getMessage()
    assert f": {status} " in line
    assert all(r.token not in line for r in server.store.raters())
    assert "content-security-policy" in sent
    assert "Traceback" not in str(content)
    return status


FORGED = ["x", "A" * 32, "%00", "..", "' OR 1=1 --".replace(" ", "%20"), "a" * 5000]


@pytest.mark.parametrize("token", FORGED)
def test_forged_tokens_find_nothing(refused, token):
    assert refused("GET", f"/r/{token}/state") == 404
    assert refused("GET", f"/r/{token}/image/0/left") == 404
    assert refused("PUT", f"/r/{token}/votes/0", vote()) == 404
    assert refused("DELETE", f"/r/{token}/votes/0") == 404
    assert refused("GET", f"/admin/{token}/progress") == 404
    assert refused("POST", f"/admin/{token}/raters", {"name": "x"}) == 404
    assert refused("GET", f"/admin/{token}/export.zip") == 404


def test_a_raters_token_opens_no_organisers_page_and_the_other_way_round(untouched, refused):
    server, _, at = untouched
    assert refused("GET", at.replace("/r/", "/admin/") + "/progress") == 404
    assert refused("GET", f"/r/{server.store.admin_token}/state") == 404


@pytest.mark.parametrize(
    "path",
    [
        "/static/../study.db",
        "/static/..%2f..%2fstudy.db",
        "/static/%2e%2e/%2e%2e/app.py",
        "/static//etc/passwd",
        "/static/rate.html",
        "/study.db",
        "/../study.json",
        "AT/image/0/../../../study.db",
        "AT/image/0/..%2f..%2fstudy.db",
        "AT/image/0/a",
        "AT/image/-1/left",
        "AT/image/0.0/left",
        "AT/image/99999999999999999999999/left",
        "AT/../../study.db",
    ],
)
def test_no_path_leads_to_a_file_of_the_study(refused, path):
    assert refused("GET", path) == 404


def test_pictures_of_trials_far_ahead_cannot_be_seen(refused):
    assert refused("GET", "AT/image/3/left") == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b'{"answer": NaN}', 400),
        (b"[" * 1500, 400),
        (b"[]", 422),
        (b'"left"', 422),
        ({}, 422),
        (vote(more=1), 422),
        (vote("up"), 422),
        (vote("same"), 422),
        (vote(["left"]), 422),
        (vote(confidence=0), 422),
        (vote(confidence=4), 422),
        (vote(confidence=True), 422),
        (vote(confidence=2.0), 422),
        (vote(confidence="2"), 422),
        (vote(seconds=-1), 422),
        (vote(seconds=1e9), 422),
        (vote(seconds="1"), 422),
        (vote(seconds=False), 422),
        (vote(nonce="short"), 422),
        (vote(nonce="x" * 65), 422),
        (vote(nonce="../../../../study.db"), 422),
        ({**vote(), "nonce": 7}, 422),
        (b" " * (MAX_BODY + 1), 413),
        (b'{"answer": "' + b"x" * 100_000 + b'"}', 413),
    ],
)
def test_bodies_of_the_wrong_form_are_refused(refused, body, status):
    assert refused("PUT", "AT/votes/0", body) == status


def test_other_content_types_are_refused(refused):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert refused("PUT", "AT/votes/0", vote(), {"Content-Type": kind}) == 415


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "AT/votes/0"),
        ("GET", "AT/votes/0"),
        ("PUT", "AT/state"),
        ("DELETE", "/static/x.js"),
    ],
)
def test_other_methods_are_refused(refused, method, path):
    assert refused(method, path, vote() if method in ("PUT", "POST") else None) == 405


def test_votes_out_of_turn_and_replays_are_conflicts(site, caplog):
    _, server, browser, at = site
    refused = partial(refuse, caplog, server, browser, at)
    assert refused("PUT", "AT/votes/1", vote(nonce=9)) == 409
    assert refused("PUT", "AT/votes/99", vote(nonce=9)) == 409
    for i in range(2):
        browser.ask("PUT", f"{at}/votes/{i}", vote(nonce=i))
    assert refused("PUT", "AT/votes/0", vote(nonce=0)) == 409  # an old one
    assert refused("PUT", "AT/votes/1", vote("right", 1)) == 409  # with another answer
    assert refused("PUT", "AT/votes/2", vote(nonce=1)) == 409  # on another trial
    assert refused("DELETE", "AT/votes/0") == 409
    browser.ask("DELETE", f"{at}/votes/1")
    assert refused("PUT", "AT/votes/1", vote(nonce=1)) == 409  # after an undo


def test_a_body_without_an_end_is_cut_off(site):
    _, server, _, at = site
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw:
        head = f"PUT {at}/votes/0 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(4):
            raw.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413")
    assert server.store.votes() == []


def test_a_line_of_the_log_cannot_be_forged(site, caplog):
    _, _, browser, _ = site
    browser.ask("GET", "/x%0a2026-01-01%20INFO%20all%20is%20well")
    assert "\n" not in caplog.records[-1].getMessage()
