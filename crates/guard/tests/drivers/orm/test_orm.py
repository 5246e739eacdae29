"""SQLAlchemy and Alembic with two drivers: migrations up, down and up again, and what an ORM does."""

import os

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "orm_author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(80), unique=True)
    books: Mapped[list["Book"]] = relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "orm_book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("orm_author.id"), index=True)
    extra: Mapped[dict | None] = mapped_column(sa.dialects.postgresql.JSONB)
    author: Mapped[Author] = relationship(back_populates="books")


@pytest.fixture(params=["psycopg", "psycopg2"])
def engine(request):
    e = os.environ
    url = sa.URL.create(f"postgresql+{request.param}", e["PGUSER"], e["PGPASSWORD"], e["PGHOST"], int(e["PGPORT"]), e["PGDATABASE"])
    engine = sa.create_engine(url)
    yield engine
    with engine.begin() as connection:
        Base.metadata.drop_all(connection)
    engine.dispose()


def first(op):
    op.create_table("orm_author", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(80), nullable=False, unique=True))
    op.create_table("orm_book", sa.Column("id", sa.Integer, primary_key=True), sa.Column("title", sa.String, nullable=False),
                    sa.Column("author_id", sa.Integer, sa.ForeignKey("orm_author.id"), nullable=False))


def second(op):
    op.add_column("orm_book", sa.Column("extra", sa.dialects.postgresql.JSONB))
    op.create_index("ix_orm_book_author_id", "orm_book", ["author_id"])


def migrate(engine, step):
    with engine.begin() as connection:
        step(Operations(MigrationContext.configure(connection)))


def differences(engine):
    with engine.connect() as connection:
        wanted = {"include_name": lambda name, kind, _: kind != "table" or name.startswith("orm_")}
        return compare_metadata(MigrationContext.configure(connection, opts=wanted), Base.metadata)


def test_migrations_up_down_and_up(engine):
    migrate(engine, first)
    assert len(differences(engine)) == 2
    migrate(engine, second)
    assert differences(engine) == []
    migrate(engine, lambda op: op.drop_index("ix_orm_book_author_id"))
    migrate(engine, lambda op: op.drop_column("orm_book", "extra"))
    assert len(differences(engine)) == 2
    migrate(engine, second)
    assert differences(engine) == []


def test_a_migration_that_fails_leaves_nothing(engine):
    with pytest.raises(sa.exc.ProgrammingError):
        migrate(engine, lambda op: (first(op), op.add_column("nowhere", sa.Column("x", sa.Integer))))
    assert not sa.inspect(engine).has_table("orm_author")


def test_concurrent_index_in_autocommit(engine):
    migrate(engine, first)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("CREATE INDEX CONCURRENTLY orm_title ON orm_book (title)")
    assert "orm_title" in {one["name"] for one in sa.inspect(engine).get_indexes("orm_book")}


def test_unit_of_work(engine):
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Author(name=f"a{n}", books=[Book(title=f"b{n}.{m}", extra={"m": m}) for m in range(3)]) for n in range(20))
        session.commit()
        found = session.scalars(sa.select(Author).options(selectinload(Author.books)).order_by(Author.id)).all()
        assert [len(author.books) for author in found] == [3] * 20
        found[0].books[0].title = "changed"
        session.delete(found[1])
        session.commit()
        assert session.scalar(sa.select(sa.func.count()).select_from(Book)) == 57
        assert session.scalar(sa.select(Book.title).where(Book.extra["m"].as_integer() == 0).order_by(Book.id)) == "changed"


def test_rollback_and_savepoint(engine):
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Author(name="one"))
        session.flush()
        with pytest.raises(sa.exc.IntegrityError):
            with session.begin_nested():
                session.add(Author(name="one"))
                session.flush()
        session.commit()
        session.add(Author(name="two"))
        session.rollback()
        assert session.scalars(sa.select(Author.name)).all() == ["one"]


def test_bulk_insert_upsert_and_streaming(engine):
    Base.metadata.create_all(engine)
    insert = sa.dialects.postgresql.insert(Author)
    with engine.begin() as connection:
        connection.execute(sa.insert(Author), [{"name": f"n{n}"} for n in range(2000)])
        connection.execute(insert.values(name="n1").on_conflict_do_nothing())
    with engine.connect() as connection:
        rows = connection.execution_options(yield_per=100).execute(sa.select(Author.id))
        assert sum(1 for _ in rows) == 2000


def test_isolation_levels(engine):
    for level in ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"]:
        with engine.connect().execution_options(isolation_level=level) as connection:
            assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == level.lower()


def test_reflection(engine):
    migrate(engine, first)
    table = sa.Table("orm_book", sa.MetaData(), autoload_with=engine)
    assert set(table.columns.keys()) == {"id", "title", "author_id"}
    assert sa.inspect(engine).get_foreign_keys("orm_book")[0]["referred_table"] == "orm_author"
