"""SQLAlchemy's ORM, with the two listeners its documentation gives for
transactions that begin with their first SELECT (pysqlite, "Serializable
isolation / Savepoints / Transactional DDL")."""

from sqlalchemy import create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from worker import many, options

path, given = options()
engine = create_engine(f"sqlite:///{path}")


@event.listens_for(engine, "connect")
def do_connect(dbapi_connection, connection_record):
    dbapi_connection.isolation_level = None


@event.listens_for(engine, "begin")
def do_begin(conn):
    conn.exec_driver_sql("BEGIN")


class Base(DeclarativeBase):
    pass


class Counter(Base):
    __tablename__ = "counter"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]


def transaction():
    with Session(engine) as session, session.begin():
        counter = session.get(Counter, 1)
        counter.n = counter.n + 1


many(int(given["transactions"]), transaction)
