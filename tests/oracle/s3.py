#!/usr/bin/env python3
"""Reads and changes buckets past walseal, with boto3: the tests' second opinion on what lies there.

Each line of standard input is a question as JSON: `arguments`, a verb and what it is for, and `environment`, which names the server by
WALSEAL_TEST_S3_ENDPOINT, _REGION, _BUCKET, _ACCESS_KEY_ID and _SECRET_ACCESS_KEY. Each is answered by a line: what was `printed`, or the
`error`. One process answers them all, because to begin takes longer than most answers.
"""

import contextlib
import datetime
import functools
import io
import json
import os
import sys
import traceback

import boto3
import botocore.exceptions


@functools.cache
def bucket(environment):
    """The bucket of these pairs of a name and a value."""
    env = lambda name: dict(environment)["WALSEAL_TEST_S3_" + name]
    resource = boto3.resource(
        "s3",
        endpoint_url=env("ENDPOINT"),
        region_name=env("REGION"),
        aws_access_key_id=env("ACCESS_KEY_ID"),
        aws_secret_access_key=env("SECRET_ACCESS_KEY"),
        config=boto3.session.Config(s3={"addressing_style": "path"}),
    )
    return resource.Bucket(env("BUCKET"))


def answer(store, verb, *args):
    if verb == "list":  # PREFIX
        for item in store.objects.filter(Prefix=args[0]):
            print(f"{item.size} {item.key}")
    elif verb == "get":  # KEY FILE
        store.download_file(args[0], args[1])
    elif verb == "put":  # KEY FILE
        with open(args[1], "rb") as body:
            store.put_object(Key=args[0], Body=body.read())
    elif verb == "delete":  # KEY
        deleted = store.delete_objects(Delete={"Objects": [{"Key": args[0]}]})
        if deleted.get("Errors"):
            raise ValueError(f"not deleted: {deleted['Errors']}")
    elif verb == "make-locked-bucket":
        store.create(ObjectLockEnabledForBucket=True)
    elif verb == "locks":  # PREFIX
        for item in store.objects.filter(Prefix=args[0]):
            head = store.meta.client.head_object(Bucket=store.name, Key=item.key)
            print(f"{head.get('ObjectLockMode', '-')} {item.key}")
    elif verb == "retain":  # KEY SECONDS
        until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=int(args[1]))
        store.meta.client.put_object_retention(
            Bucket=store.name,
            Key=args[0],
            BypassGovernanceRetention=True,
            Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until},
        )
    elif verb == "legal-hold":  # KEY ON|OFF
        store.meta.client.put_object_legal_hold(Bucket=store.name, Key=args[0], LegalHold={"Status": args[1]})
    elif verb == "markers":  # PREFIX: objects that a delete marker hides
        pages = store.meta.client.get_paginator("list_object_versions").paginate(Bucket=store.name, Prefix=args[0])
        for page in pages:
            for marker in page.get("DeleteMarkers", []):
                if marker["IsLatest"]:
                    print(marker["Key"])
    elif verb in ("try-to-delete-version", "try-to-bypass-governance"):  # KEY
        client = store.meta.client
        version = client.head_object(Bucket=store.name, Key=args[0])["VersionId"]
        more = {"BypassGovernanceRetention": True} if verb == "try-to-bypass-governance" else {}
        try:
            client.delete_object(Bucket=store.name, Key=args[0], VersionId=version, **more)
            print("deleted")
        except botocore.exceptions.ClientError as error:
            print(error.response["Error"]["Code"])
    elif verb == "download":  # PREFIX FOLDER
        for item in store.objects.filter(Prefix=args[0]):
            path = os.path.join(args[1], item.key[len(args[0]):].lstrip("/"))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            store.download_file(item.key, path)
    else:
        raise ValueError(f"unknown verb {verb}")


def main():
    for line in sys.stdin:
        question = json.loads(line)
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                answer(bucket(tuple(question["environment"].items())), *question["arguments"])
            said = {"printed": printed.getvalue()}
        except Exception:  # noqa: BLE001: who asked decides what an error means.
            said = {"error": traceback.format_exc()}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
