"""The compatibility program for SQLAlchemy, on its default driver (psycopg2) and on
asyncpg."""

import asyncio
import datetime
import decimal
import uuid

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session, declarative_base, relationship
from sqlalchemy.pool import NullPool

from report import equal, feature, name

engine = sa.create_engine("postgresql+psycopg2://", pool_size=2, pool_pre_ping=True, future=True)
Base = declarative_base()


class Author(Base):
    __tablename__ = name("author")
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String, nullable=False, unique=True)
    books = relationship("Book", back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = name("book")
    id = sa.Column(sa.Integer, sa.Identity(), primary_key=True)
    title = sa.Column(sa.String)
    author_id = sa.Column(sa.ForeignKey(Author.id))
    author = relationship(Author, back_populates="books")


def table(of, *columns):
    t = sa.Table(name(of), sa.MetaData(), *columns)
    t.drop(engine, checkfirst=True)
    t.create(engine)
    return t


def state(attempt, *args):
    try:
        attempt(*args)
    except sa.exc.DBAPIError as e:
        return e.orig.pgcode or str(e.orig).strip().split("FATAL: ")[-1].strip()
    return "no error"


def count(c, t):
    return c.scalar(sa.select(sa.func.count()).select_from(t))


def reads():
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        for i in range(50):
            c.execute(sa.text(f"UPDATE {name('reads')} SET n = :n WHERE id = 1"), {"n": i})
            equal(c.scalar(sa.text(f"SELECT n FROM {name('reads')} WHERE id = 1")), i)
    return ""


def connect():
    with engine.connect() as c:
        who = c.scalar(sa.text("SELECT current_user || ' ' || current_database()"))
    missing = sa.create_engine("postgresql+psycopg2:///there_is_none")
    return who, engine.dialect.server_version_info, engine.dialect.default_schema_name, state(missing.connect)


def types():
    t = table("types", sa.Column("b", sa.Boolean), sa.Column("l", sa.BigInteger), sa.Column("f", sa.Float),
              sa.Column("n", sa.Numeric), sa.Column("t", sa.Text), sa.Column("y", sa.LargeBinary),
              sa.Column("d", sa.Date), sa.Column("z", sa.DateTime(timezone=True)), sa.Column("v", sa.Interval),
              sa.Column("u", pg.UUID(as_uuid=True)), sa.Column("j", pg.JSONB), sa.Column("a", pg.ARRAY(sa.Integer)),
              sa.Column("e", sa.Enum("one", "two", name=name("number"))), sa.Column("nothing", sa.Text))
    row = (
        True, -9223372036854775808, 0.1, decimal.Decimal("12345678901234567890.123456789"), "żółć \"' \\ 日本",
        b"\x00\x01\xff", datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 13, 14, 15, 678901, datetime.timezone.utc),
        datetime.timedelta(days=3, seconds=4, microseconds=5), uuid.UUID(int=2**100), {"a": [1, None]}, [1, -2],
        "two", None,
    )
    with engine.begin() as c:
        c.execute(t.insert().values(row))
        equal(tuple(c.execute(t.select()).one()), row)
    seen = sorted(str(column["type"]) for column in sa.inspect(engine).get_columns(t.name))
    t.drop(engine)
    return seen


def transaction():
    t = table("transaction", sa.Column("id", sa.Integer, primary_key=True))
    with engine.connect() as c, engine.connect() as other:
        outer = c.begin()
        c.execute(t.insert().values(id=1))
        equal((count(c, t), count(other, t)), (1, 0))
        outer.rollback()
        equal(count(c, t), 0)
    with engine.begin() as c:
        c.execute(t.insert().values(id=1))

        def inner():
            with c.begin_nested():
                c.execute(t.insert().values(id=1))

        savepoint = state(inner)
    serializable = engine.execution_options(isolation_level="SERIALIZABLE", postgresql_readonly=True)
    with serializable.connect() as c:
        equal((count(c, t), c.scalar(sa.text("SHOW transaction_isolation"))), (1, "serializable"))
        refused = state(c.execute, t.insert().values(id=2))
    with engine.connect() as c:
        return savepoint, refused, count(c, t), c.scalar(sa.text("SHOW transaction_isolation"))


def error():
    t = table("error", sa.Column("id", sa.Integer, primary_key=True))
    states = []
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        for sql in ["SELEC 1", "SELECT * FROM there_is_none", "SELECT 1/0", "SELECT 'x'::int",
                    f"INSERT INTO {t.name} VALUES (1), (1)"]:
            states.append(state(c.execute, sa.text(sql)))
            equal(c.scalar(sa.text("SELECT 'fine'")), "fine")
    with engine.connect() as c:
        states += [state(c.execute, sa.text("SELECT 1/0")), state(c.execute, sa.text("SELECT 1"))]
        c.rollback()
        return states, c.scalar(sa.text("SELECT 'fine'"))


def cursor():
    with engine.connect().execution_options(stream_results=True, max_row_buffer=90) as c:
        return sum(n for n, in c.execute(sa.text("SELECT generate_series(1, 1000)")))


def settings():
    mine = name("application")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
        c.execute(sa.text("SET TimeZone = 'Asia/Tokyo'"))
        c.execute(sa.text("SELECT set_config('application_name', :mine, false)"), {"mine": mine})
        for _ in range(20):
            equal(c.scalar(sa.text("SHOW application_name")), mine)
            equal(c.scalar(sa.text("SELECT current_setting('TimeZone')")), "Asia/Tokyo")
        c.execute(sa.text("RESET ALL"))
        return c.scalar(sa.text("SHOW application_name"))


def batch():
    t = table("batch", sa.Column("id", sa.Integer, primary_key=True), sa.Column("v", sa.Text))
    with engine.begin() as c:
        c.execute(t.insert(), [{"id": i, "v": f"row {i}"} for i in range(50)])
    upsert = pg.insert(t).values(id=1, v="again")
    with engine.begin() as c:
        back = c.execute(upsert.on_conflict_do_update(index_elements=["id"], set_={"v": upsert.excluded.v})
                         .returning(t.c.v)).scalar()
        return count(c, t), back


def orm():
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as s:
        s.add(Author(name="Lem", books=[Book(title="Solaris"), Book(title="Eden")]))
        s.commit()
    with Session(engine) as s:
        lem = s.query(Author).filter_by(name="Lem").with_for_update().one()
        titles = sorted(b.title for b in lem.books)
        s.add(Author(name="Lem"))
        double = state(s.commit)
        s.rollback()
        s.delete(s.get(Author, lem.id))
        s.commit()
        return titles, double, s.query(Book).count()


def reflection():
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    inspector = sa.inspect(engine)
    keys = inspector.get_foreign_keys(Book.__tablename__)
    return (inspector.has_table(Author.__tablename__), keys[0]["referred_columns"],
            len(inspector.get_unique_constraints(Author.__tablename__)),
            [c["name"] for c in inspector.get_columns(Book.__tablename__)])


def with_asyncpg():
    async def main():
        asynchronous = create_async_engine("postgresql+asyncpg://", poolclass=NullPool)
        seen = []
        for i in range(5):
            async with asynchronous.begin() as c:
                await c.execute(sa.text("SELECT set_config('application_name', :n, true)"), {"n": name(str(i))})
                equal((await c.execute(sa.text("SHOW application_name"))).scalar(), name(str(i)))
                rows = await c.stream(sa.text("SELECT generate_series(1, 100)"))
                seen.append(sum([n async for n, in rows]))
        await asynchronous.dispose()
        return seen

    return asyncio.run(main())


for attempt in (reads, connect, types, transaction, error, cursor, settings, batch):
    feature(attempt.__name__, attempt)
for absent in ("prepared", "copy", "cancel", "notify", "largeobject"):
    print(absent, "none left to the driver")
feature("object-relational_mapping", orm)
feature("reflection", reflection)
feature("with_asyncpg", with_asyncpg)
