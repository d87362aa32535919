-- A bit of every kind of record that walseal interprets, and records that span pages and segments.
-- Runs statement by statement; :compression is a setting of wal_compression.
\set compression on
create table t (id bigint generated always as identity primary key, v text);
create index on t (v);
insert into t (v) select md5(i::text) from generate_series(1, 3000) i;
checkpoint;
set wal_compression = :compression;
update t set v = v || 'x' where id % 3 = 0;
set wal_compression = off;
begin; insert into t (v) values ('rolled back'); rollback;
begin; insert into t (v) values ('one'); savepoint a; insert into t (v) values ('two'); savepoint b;
insert into t (v) values ('three'); rollback to b; insert into t (v) values ('four'); commit;
do $$ begin
  for i in 1..2500 loop
    begin insert into t (v) values ('sub ' || i); exception when others then raise; end;
  end loop;
end $$;
-- As many subtransactions, aborted.
do $$ begin
  for i in 1..300 loop
    begin insert into t (v) values ('sub ' || i); exception when others then raise; end;
  end loop;
  raise exception 'on purpose';
exception when raise_exception then null;
end $$;
begin;
do $$ begin for i in 1..200 loop execute format('create table many_%s (a int primary key, b text)', i); end loop; end $$;
commit;
begin; create table prepared_one (a int); savepoint s; insert into prepared_one values (1); drop table many_1;
prepare transaction 'first prepared';
begin; insert into t (v) values ('second'); savepoint s; drop table many_2; create table prepared_two (a text);
prepare transaction 'the second, with ''quotes''';
select pg_create_restore_point('before migration');
-- 61 characters, 63 bytes: the longest name there is.
select pg_create_restore_point(rpad('ünïcode ', 61, 'x'));
commit prepared 'first prepared';
rollback prepared 'the second, with ''quotes''';
begin;
do $$ begin for i in 3..200 loop execute format('drop table many_%s', i); end loop; end $$;
commit;
select pg_switch_wal();
select pg_replication_origin_create('elsewhere');
select pg_replication_origin_session_setup('elsewhere');
begin; select pg_replication_origin_xact_setup('0/1234', '2020-02-02 02:02:02+00'); insert into t (v) values ('o'); commit;
begin; select pg_replication_origin_xact_setup('0/1238', '2020-02-02 02:02:03+00'); insert into t (v) values ('o');
savepoint s; insert into t (v) values ('p'); prepare transaction 'from elsewhere';
commit prepared 'from elsewhere';
select pg_replication_origin_session_reset();
select pg_logical_emit_message(true, 'big', repeat('0123456789', 250000));
begin; select pg_logical_emit_message(false, 'big', repeat('abcdefghij', 10000)); insert into t (v) values ('last');
commit;
select pg_switch_wal();
vacuum t;
truncate t;
checkpoint;
