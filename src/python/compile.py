"""Compiles the files named on standard input, relative to the environment given as the only argument.

Bytecode is checked against its source by time and size, as Python itself writes it: both survive linking and copying
(which keep times), and a file that is edited by hand is noticed. It names its source relative to the environment; the
import system puts the real path in when it loads it. What is no valid Python is left uncompiled, as it will never be
imported; anything else that goes wrong (a full disk) is an error.
"""
import os
import py_compile
import sys
from importlib.machinery import SourcelessFileLoader

os.chdir(sys.argv[1])
names = [os.fsdecode(name) for name in sys.stdin.buffer.read().split(b"\0") if name]
workers = max(1, min(len(os.sched_getaffinity(0)), len(names) // 8))
children = []
for worker in range(workers):
    child = os.fork()
    if child:
        children.append(child)
        continue
    status = 1
    try:
        for name in names[worker::workers]:
            try:
                bytecode = py_compile.compile(name, doraise=True)
            except py_compile.PyCompileError:
                continue
            # Before 3.14 what a full disk cut short is taken for written, and cannot be imported.
            try:
                SourcelessFileLoader(name, bytecode).get_code(name)
            except (EOFError, ImportError):
                raise OSError("cut short, as on a full disk")
        status = 0
    except Exception as error:
        print("cannot compile %s: %s" % (os.path.join(sys.argv[1], name), error), flush=True)
    finally:
        os._exit(status)
failed = [child for child in children if os.waitpid(child, 0)[1]]
sys.exit(1 if failed else 0)
