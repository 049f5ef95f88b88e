#!/usr/bin/python3
"""The service of examples/go, in Python: the same notes, the same token.

Needs psycopg2 (Debian: python3-psycopg2) and nothing else.
"""

import argparse
import contextlib
import http.cookies
import http.server
import json
import re

import psycopg2
import psycopg2.pool

HEADER = "Lsnproxy-Token"  # for services and scripts
COOKIE = "lsnproxy_token"  # for browsers, which bring it back by themselves

# A token comes from outside and goes into a statement, so it has to look like one.
TOKEN = re.compile(r"[0-9]{1,20}:[0-9]{1,10}:[0-9A-F]{1,8}/[0-9A-F]{1,8}")


class Service(http.server.BaseHTTPRequestHandler):
    pool = None

    def do_POST(self):
        """Write a note and give the client the token that covers it."""
        text = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 1000)).decode()
        with self.database() as conn:
            with conn.cursor() as cursor:
                cursor.execute("INSERT INTO notes(text) VALUES (%s)", (text,))
            # The proxy has sent it ahead of the answer: it costs nothing to look.
            token = conn.get_parameter_status("lsnproxy.token")
        headers = {}
        if token:
            headers = {HEADER: token, "Set-Cookie": f"{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax"}
        self.answer(201, b"", headers)

    def do_GET(self):
        """Read the notes, and see at least what the client's token stands for."""
        token = self.token()
        if token and not TOKEN.fullmatch(token):
            return self.answer(400, b"this is no token\n")
        hint = f"/* lsnproxy: token={token} */ " if token else ""
        try:
            with self.database() as conn, conn.cursor() as cursor:
                cursor.execute(hint + "SELECT text FROM notes ORDER BY id")
                notes = [row[0] for row in cursor]
        except psycopg2.Error as e:
            # 22023: the token is of another database, or of a time to come.
            # LS001, LS003: what it stands for was lost in a failover, or may have been.
            status = {"22023": 400, "LS001": 409, "LS003": 409}.get(e.pgcode, 500)
            return self.answer(status, str(e).encode())
        self.answer(200, json.dumps(notes).encode() + b"\n", {"Content-Type": "application/json"})

    def token(self):
        cookies = http.cookies.SimpleCookie(self.headers.get("Cookie", ""))
        return self.headers.get(HEADER) or (cookies[COOKIE].value if COOKIE in cookies else "")

    @contextlib.contextmanager
    def database(self):
        conn = self.pool.getconn()
        try:
            conn.autocommit = True  # a read in a transaction that may write runs on the leader
            yield conn
        finally:
            self.pool.putconn(conn)

    def answer(self, status, body, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:8082", metavar="HOST:PORT")
    host, port = parser.parse_args().listen.rsplit(":", 1)
    Service.pool = psycopg2.pool.ThreadedConnectionPool(1, 20, "")  # from PGHOST, PGPORT and so on
    print(f"serving on http://{host}:{port}/notes", flush=True)
    http.server.ThreadingHTTPServer((host, int(port)), Service).serve_forever()
