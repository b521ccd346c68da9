"""One cloud a database, and a database that goes away for a while."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import text

from triparty.cloud import claim
from triparty.cloud.claim import claimed
from triparty.cloud.database import Database
from triparty.common.errors import SettingsError, StateError

DATABASES = ("postgresql",)
LIMIT_S = 30


def refused(url):
    with pytest.raises(StateError, match="another"), claimed(url):
        pass


def test_one_claim_at_a_time(database_url):
    with claimed(database_url):
        refused(database_url)
    with claimed(database_url):
        refused(database_url)


def test_a_claim_is_taken_again_after_its_connection_broke(postgres, monkeypatch):
    monkeypatch.setattr(claim, "LOOK_EVERY_S", 0.01)
    name = postgres.new_database()
    with claimed(postgres.url(name)):
        for _ in range(2):
            postgres.disconnect_all(name)
            wait_until_claimed(postgres, name)
            refused(postgres.url(name))


def wait_until_claimed(postgres, name):
    end = time.monotonic() + LIMIT_S
    lock = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    while not postgres.ask(lock, database=name):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_claim_of_what_cannot_be_reached(tmp_path):
    absent = f"postgresql+psycopg://x@/x?host={tmp_path}"
    with pytest.raises(StateError, match="cannot open"), claimed(absent):
        pass
    with pytest.raises(StateError, match="cannot open"):
        Database(absent)
    with pytest.raises(StateError, match="cannot open"), claimed(f"sqlite:///{tmp_path}/a/b"):
        pass


def test_a_driver_that_is_not_installed():
    with pytest.raises(SettingsError, match=r"triparty\[postgresql\]"):
        Database("postgresql+pg8000://x@/x")


def test_a_password_is_not_repeated(tmp_path):
    with pytest.raises(StateError) as caught:
        Database(f"postgresql+psycopg://x:hunter2@/x?host={tmp_path}")
    assert "hunter2" not in caught.value.message


def test_connections_that_broke_are_replaced(cloud, developer, postgres):
    for _ in range(3):
        postgres.disconnect_all(cloud.database_name)
        assert developer.request("GET", "/v1/artifacts").status_code == 200
        developer.publish({"config.json": b"{}"}, version=cloud.now.year + _)


def test_a_database_that_is_away(cloud, developer, postgres, slug):
    postgres.run(f"ALTER DATABASE {cloud.database_name} ALLOW_CONNECTIONS false")
    postgres.disconnect_all(cloud.database_name)
    developer.cloud.app.state.tokens.forget_all()
    answers = [developer.request("GET", "/v1/artifacts"), cloud.request("GET", "/readyz")]
    for answer in answers:
        assert (answer.status_code, slug(answer)) == (503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert "Error" not in answer.text
    postgres.run(f"ALTER DATABASE {cloud.database_name} ALLOW_CONNECTIONS true")
    assert developer.request("GET", "/v1/artifacts").status_code == 200


def test_readers_see_one_state(database_url):
    store = Database(database_url)
    with store.reading() as session:
        count = text("SELECT count(*) FROM principals")
        assert session.execute(count).scalar() == 0
        with store.writing() as other:
            other.execute(
                text(
                    "INSERT INTO principals (id, role, name, created) "
                    "VALUES ('operator', 'operator', 'x', CURRENT_TIMESTAMP)"
                )
            )
        assert session.execute(count).scalar() == 0
    store.close()
