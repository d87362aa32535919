"""What a base backup does to its bytes, part by part, on one core: `bench/kernels`, built on the first run."""
import json
import os
import subprocess

from .scratch import Failed, say

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "kernels")
# As `Effort` in archiver/src/base/shipper.rs has it.
LEVEL = "1"


def measure(place, file):
    """CPU seconds of each part over the bytes of `file`, and how many they were before and after."""
    say("building bench/kernels")
    target = os.path.join(FOLDER, "target")
    built = subprocess.run(["cargo", "build", "--quiet", "--release", "--manifest-path", f"{FOLDER}/Cargo.toml", "--target-dir", target],
                           check=False, env={key: value for key, value in os.environ.items() if not key.startswith("CARGO_PROFILE_")})
    if built.returncode != 0:
        raise Failed("bench/kernels could not be built")
    folder = place.folder("kernels")
    done = subprocess.run([f"{target}/release/kernels", file, folder, LEVEL], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"bench/kernels ended with {done.returncode}")
    return json.loads(done.stdout)
