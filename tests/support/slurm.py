"""SLURM's commands as far as submitit uses them, for one machine: arrays run as processes, two at a time."""

import stat

COMMANDS = {
    "sbatch": """
        script = Path(sys.argv[-1]).read_text()
        (HERE / "script.sh").write_text(script)
        refused = HERE / "refusal"
        if refused.exists():
            sys.exit(refused.read_text())
        array = re.search(r"--array=0-([0-9]+)%", script)
        job = 1000 + len(list(HERE.glob("job-*")))
        names = [f"{job}_{k}" for k in range(int(array[1]) + 1)] if array else [str(job)]
        for name in names:
            (HERE / f"job-{job}").touch()
            variables = {"SLURM_JOB_ID": name, "SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1",
                         "SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
                         "SLURM_JOB_NODELIST": "localhost"}
            if array:
                variables |= dict(zip(("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"), name.split("_")))
            process = subprocess.Popen(["bash", sys.argv[-1]], env={**os.environ, **variables},
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                       start_new_session=True)
            (HERE / f"pid-{name}").write_text(str(process.pid))
        print(f"Submitted batch job {job}")
    """,
    "srun": """
        first = next(k for k, one in enumerate(sys.argv) if k and "python" in one)
        out = sys.argv[sys.argv.index("--error") + 1].replace("%t", "0")
        for place in ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID"):
            code = {"SLURM_ARRAY_JOB_ID": "%A", "SLURM_ARRAY_TASK_ID": "%a", "SLURM_JOB_ID": "%j"}[place]
            out = out.replace(code, os.environ.get(place, ""))
        with open(out, "a") as errors:
            sys.exit(subprocess.run(sys.argv[first:], stdout=errors, stderr=errors).returncode)
    """,
    "sacct": """
        print("JobID|State|NodeList")
        for path in HERE.glob("pid-*"):
            try:
                os.killpg(int(path.read_text()), 0)
                state = "RUNNING"
            except ProcessLookupError:
                state = "NODE_FAIL" if (HERE / f"killed-{path.name[4:]}").exists() else "COMPLETED"
            print(f"{path.name[4:]}|{state}|localhost")
    """,
    "scancel": """
        for path in HERE.glob(f"pid-{sys.argv[1]}*"):
            try:
                os.killpg(int(path.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                pass
    """,
}


def install(folder, python):
    """Write the commands into a folder that is to stand in front of the path."""
    head = f"#!{python}\nimport os, re, signal, subprocess, sys\nfrom pathlib import Path\n"
    head += f"HERE = Path({str(folder)!r})\n"
    for name, body in COMMANDS.items():
        lines = [line[8:] for line in body.splitlines()]
        path = folder / name
        path.write_text(head + "\n".join(lines))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return folder
