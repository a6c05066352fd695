"""An S3 server that verifies each signature: moto, with an access key and a bucket.

Runs with the Python of .venv/object-store: `object_store.py FOLDER` serves the files in a folder as
the objects of the bucket `models`, prints its port, an access key and a temporary one as JSON, and
ends with its standard input.
"""

import json
import logging
import os
import sys
from pathlib import Path

import boto3
from moto import settings
from moto.server import ThreadedMotoServer

BUCKET = "models"
PUBLIC = "public.gguf"
"""Of an object that everybody may read."""

POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"}
    ],
}


def main(folder: Path, address: str = "127.0.0.1", listen_on: str = "0") -> None:
    """Serve until the end of standard input, by default on a free port of 127.0.0.1."""
    logging.disable()
    # Otherwise the first label of a host such as s3.example.svc is the bucket.
    settings.S3_IGNORE_SUBDOMAIN_BUCKETNAME = True
    os.environ |= {"AWS_ACCESS_KEY_ID": "setup", "AWS_SECRET_ACCESS_KEY": "setup"}
    server = ThreadedMotoServer(address, int(listen_on), verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    endpoint = {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": "us-east-1"}
    iam, s3 = boto3.client("iam", **endpoint), boto3.client("s3", **endpoint)
    iam.create_user(UserName="reader")
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=json.dumps(POLICY))
    key = iam.create_access_key(UserName="reader")["AccessKey"]
    role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=json.dumps(POLICY))["Role"]
    iam.put_role_policy(RoleName="reader", PolicyName="read", PolicyDocument=json.dumps(POLICY))
    sts = boto3.client("sts", **endpoint)
    session = sts.assume_role(RoleArn=role["Arn"], RoleSessionName="tests")["Credentials"]
    s3.create_bucket(Bucket=BUCKET)
    for path in (each for each in folder.rglob("*") if each.is_file()):
        s3.put_object(Bucket=BUCKET, Key=str(path.relative_to(folder)), Body=path.read_bytes())
    public = folder / PUBLIC
    if public.exists():
        s3.put_object_acl(Bucket=BUCKET, Key=PUBLIC, ACL="public-read")
    # From now on, each request needs a valid signature and a right.
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    temporary = {
        "id": session["AccessKeyId"],
        "secret": session["SecretAccessKey"],
        "session_token": session["SessionToken"],
    }
    print(
        json.dumps(
            {
                "port": port,
                "id": key["AccessKeyId"],
                "secret": key["SecretAccessKey"],
                "temporary": temporary,
            }
        )
    )
    sys.stdout.flush()
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
