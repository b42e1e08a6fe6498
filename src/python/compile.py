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
            try:
                SourcelessFileLoader(name, bytecode).get_code(name)
            except (EOFError, ImportError):
                raise OSError("cut short, as on a full disk")
        status = 0
    except Exception as error:
        print("cannot compile %s: %s" % (os.path.join(sys.argv[1], name), error), flush=True)
    finally:
        os._exit(status)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
