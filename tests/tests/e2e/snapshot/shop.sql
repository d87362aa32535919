create extension if not exists pgcrypto;
create schema "Odd.Schema";
create table orders (id bigint generated always as identity primary key, note text not null, at timestamptz default now());
insert into orders (note) select 'order ' || i from generate_series(1, 500) i;
create index on orders (note);
create table items (order_id bigint references orders, line int, price numeric(12, 2), amount int,
    total numeric generated always as (price * amount) stored, primary key (order_id, line), check (amount > 0));
insert into items (order_id, line, price, amount) select i, 1, i * 1.5, 1 + i % 7 from generate_series(1, 500) i;
create view generated_prices as select order_id, total from items;
create materialized view sums as select sum(total) as total from items;
create table "Odd.Schema"."two words ""quoted""" ("a""b" int primary key, "ü €" text);
insert into "Odd.Schema"."two words ""quoted""" values (1, E'tab\tline\nend\\'), (2, null);
create table "Odd.Schema"."O'Neil; drop table x" (a int);
create table empty_one (a int);
create table no_columns ();
create table events (at date not null, what text) partition by range (at);
create table events_2025 partition of events for values from ('2025-01-01') to ('2026-01-01');
create table events_2026 partition of events for values from ('2026-01-01') to ('2027-01-01') partition by list (what);
create table events_2026_a partition of events_2026 for values in ('a');
create table events_2026_other partition of events_2026 default;
insert into events select date '2025-12-01' + i, chr(97 + i % 3) from generate_series(0, 90) i;
create table parent (a int);
create table child (b int) inherits (parent);
insert into parent values (1);
insert into child values (2, 3), (4, 5);
create unlogged table sessions as select generate_series(1, 3) as id;
create type mood as enum ('sad', 'ok', 'it''s great');
create type pair as (x int, y text);
create domain positive as int check (value > 0);
create domain small_positive as positive check (value < 10);
create domain moods as mood[] check (cardinality(value) > 0);
create type ranked as (who pair, how mood[], "at most" small_positive);
create type float_range as range (subtype = float8, subtype_diff = float8mi);
create table every_type (
    a smallint, b int, c bigint, d numeric, e real, f double precision, g money, h char(5), i varchar(9), j text, k bytea,
    l timestamp, m timestamptz, n date, o time, p timetz, q interval, r boolean, s point, t line, u lseg, v box, w path,
    x polygon, y circle, z inet, aa cidr, ab macaddr, ac macaddr8, ad bit(3), ae bit varying(9), af tsvector, ag tsquery,
    ah uuid, ai xml, aj json, ak jsonb, al jsonpath, am int[], an text[][], ao int4range, ap int8range, aq numrange,
    ar tsrange, at tstzrange, au daterange, av int4multirange, aw nummultirange, ax mood, ay pair, az positive, ba oid,
    bb regclass, bc pg_lsn, bd name, be "char", bf txid_snapshot, bg pg_snapshot, bh mood[], bi pair[],
    ca tid, cb cid, cc xid, cd xid8, ce oidvector, cf int2vector, cg refcursor, ch aclitem, ci regproc, cj regprocedure,
    ck regoper, cl regoperator, cm regtype, cn regrole, co regnamespace, cp regconfig, cq regdictionary, cr regcollation,
    cs int8multirange, ct tsmultirange, cu tstzmultirange, cv datemultirange,
    -- No value of these comes from outside: a dump has the column only.
    da pg_node_tree, db pg_ndistinct, dc pg_dependencies, dd pg_mcv_list, de pg_brin_bloom_summary,
    df pg_brin_minmax_multi_summary, dg gtsvector,
    ea small_positive, eb moods, ec ranked, ed float_range, ee float_multirange, ef money[], eg bit(3)[], eh varbit(5)[],
    ei macaddr8[], ej xid8[], ek regclass[], el "char"[], em name[], en numeric(5, 2)[], eo interval[][], ep tsrange[],
    eq int4multirange[], er jsonpath[], es tsquery[], et positive[], eu ranked[], ev oidvector[], ew bytea[], ex jsonb[],
    ey pg_lsn[], ez tid[]);
insert into every_type values (
    -32768, 2147483647, -9223372036854775808, 'NaN', '-infinity', 0.1, '12.34', 'ab', 'c', E'x\\y', '\x00ff5c',
    'infinity', '2026-11-26 02:30:00.123456+01', '0044-03-15 BC', '23:59:59.999999', '12:00+05:30', '1 year -2 days', true,
    '(1,2)', '{1,2,3}', '[(1,2),(3,4)]', '(1,2),(3,4)', '[(1,2),(3,4)]', '((1,2),(3,4),(5,6))', '<(1,2),3>', '::1/64',
    '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '101', '10101', 'a fat cat', 'fat & cat',
    '00000000-0000-0000-0000-000000000001', '<a>b</a>', '{"a" :  1}', '{"a": [1, null]}', '$.a[*]', '{1,null,3}',
    '{{a,"b,c"},{d,null}}', '[1,5)', '(,5)', '[1.5,2.5]', '[2026-01-01,2026-02-01)', '[2026-01-01 00:00+00,)',
    '[2026-01-01,2026-01-02)', '{[1,2),[5,7)}', '{[1.0,2.0]}', 'it''s great', '(1,"a ""b""")', 7, 12345,
    'pg_class', '0/16B3748', 'a name', 'c', '10:20:10,14,15', '10:20:10,14,15', '{sad,ok}', '{"(1,a)","(2,)"}',
    '(7,3)', '5', '4294967295', '18446744073709551615', '1 2 4294967295', '-1 0 1', 'a cursor',
    'pg_read_all_data=r*w/pg_monitor', 'now', 'abs(integer)', '|/', '+(integer,integer)', 'timestamp with time zone',
    'pg_read_all_data', 'pg_catalog', 'english', 'simple', '"C"', '{(,3),[7,)}',
    '{[2026-01-01,2026-02-01),[2026-03-01,infinity)}', '{[2026-01-01 00:00+00,2026-01-01 00:00:00.000001+00)}',
    '{[2026-01-01,2026-01-02),[2026-02-01,)}',
    null, null, null, null, null, null, null,
    9, '{ok}', '("(1,""a, b"")","{sad,""it''s great""}",3)', '[0.1,1e300)', '{(,-1),[0.1,0.2],(5,infinity]}',
    '{-12.34,null}', '{101,000}', '{1,10101}', '{08:00:2b:01:02:03:04:05}', '{1,18446744073709551615}',
    '{pg_class,"information_schema.tables"}', E'{a,"\\\\",""}', '{"a name",null}', '{999.99,-0.01,NaN}',
    '{{1 mon,-2 days},{00:00:00.000001,178000000 years}}', '{"[2026-01-01,2026-02-01)",empty}', '{"{[1,2)}","{}"}',
    '{"$.a[*] ? (@ > 1)","strict $"}', '{"a & !b","c <-> d"}', '{1,2147483647}', '{"(\"(1,)\",{},)",null}',
    '{"1 2","3"}', E'{"\\\\x00ff",null}', '{"{\"a\": \"\\\\u20ac\"}"}', '{0/0,FFFFFFFF/FFFFFFFF}', '{"(0,1)"}');
insert into every_type default values;
create table secrets (owner name default current_user, secret text);
insert into secrets (secret) values ('one'), ('two');
alter table secrets enable row level security;
alter table secrets force row level security;
create policy own on secrets using (owner = current_user);
create function total(o bigint) returns numeric language sql stable as 'select sum(total) from items where order_id = o';
create function touch() returns trigger language plpgsql as $$ begin new.at := now(); return new; end $$;
create trigger touch before update on orders for each row execute function touch();
create sequence ticks start 42 increment 7;
select nextval('ticks');
create publication everything for all tables;
create statistics spread on order_id, line from items;
comment on table orders is 'what people want; "quoted"';
select lo_from_bytea(424242, decode(repeat('00ff', 5000), 'hex'));
select lo_from_bytea(0, 'small');
comment on large object 424242 is 'a large one';
create table pictures (name text, picture oid);
insert into pictures values ('one', 424242);
