"""Metadata from settings.ini, and the compiled kernels: two groups of sources, each compiled once for every instruction set.

The kernels are optional: where there is no C compiler the build goes on without them, says so, and the
package computes the same with NumPy. Copies, C files and finished modules stay in build/kernels, so that a
second build compiles only what changed. Flags in the environment variable CS231N_LIT_CFLAGS come last when
compiling and linking, in a build folder of their own: `make sanitize` builds that way. CS231N_LIT_TARGETS names
some of v1, v3 and v4, where not all are needed. CS231N_LIT_PURE=1 leaves them all out: a wheel for any machine.
On Windows they need clang-cl, with Visual Studio's headers and linker: the loops are written for compilers that can be
told how far to unroll, and MSVC cannot.
"""
import ast, configparser, hashlib, json, os, platform, re, shutil, subprocess, sys, tempfile
from importlib.metadata import version
from pathlib import Path

from setuptools import Extension, find_namespace_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent
SHARED = 'cs231n_lit._cyutility'  # Cython's own code for memoryviews, compiled once instead of in every module
# name in the module's file: the instruction set, bytes of a vector register, number of these, compiler flags
NEON = {'neon': ('aarch64', 16, 32, [])}
X86 = {'v1': ('x86-64', 16, 16, []),
       'v3': ('x86-64-v3', 32, 16, ['-march=x86-64-v3']),
       'v4': ('x86-64-v4', 64, 32, ['-march=x86-64-v4', '-mprefer-vector-width=512'])}
MACHINE = platform.machine().lower()
TARGETS = NEON if MACHINE in ('aarch64', 'arm64') else X86 if MACHINE in ('x86_64', 'amd64') else {'v1': (MACHINE, 16, 16, [])}
EXTRA = os.environ.get('CS231N_LIT_CFLAGS', '').split()
PURE = os.environ.get('CS231N_LIT_PURE', '') not in ('', '0')
# Flags used where the compiler has them. None of them changes a result (so no -ffast-math): NaN, infinity and
# rounding stay as written. Those of the convolution keep compilers from rearranging the loops over one vector
# (unrolling, splitting, jamming them) before they vectorise them, which costs a factor of ten and more; on ARM also
# from fetching numbers so early that sums have to give up their registers, and from giving up on whether a sum may lie
# where a row does.
FLAGS = [['-O3'], ['-g0'], ['-fno-math-errno'], ['-fno-trapping-math'], ['-Wno-unused-function']]
FLAGS_OF = {'conv': [['-fno-loop-unroll-and-jam'], ['-fno-tree-loop-distribution'], ['-fno-tree-loop-distribute-patterns'],
                     ['-DCYTHON_INLINE=inline __attribute__((always_inline))'],
                     ['--param=max-completely-peel-times=7', '--param=max-completely-peeled-insns=1000'],  # GCC
                     ['-fno-schedule-insns'],                                                              # GCC on ARM
                     ['-mllvm', '-unroll-full-max-count=7'],                                               # clang
                     ['-mllvm', '-capture-tracking-max-uses-to-explore=1000']],                            # clang on ARM
            'layers': [['--param=max-completely-peel-times=14', '--param=max-completely-peeled-insns=1000']]}
# The modules of cs231n_lit/kernels that are joined to one before they are compiled, each below those it imports from: the
# compiler then copies a small function of one into another, with constants in place of its arguments.
SOURCES = {'conv': ['tile', 'memory', 'share', 'windows', 'window_gradients', 'strips', 'four_rows', 'winograd', 'winograd_gradients', 'matrix', 'conv'],
           'layers': ['tile', 'memory', 'traffic', 'pooling', 'norms', 'updates']}
DIRECTIVES = dict(language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, nonecheck=False,
                  cdivision=True, binding=False, infer_types=True)


def clang_cl(cl):
    "Clang in the place of Microsoft's cl.exe: from the PATH, or from where Visual Studio's installer puts it; None if it is nowhere."
    beside = [str(tools/'Llvm'/'x64'/'bin') for tools in Path(cl).parents[5:6]]  # cl.exe is in Tools/MSVC/14.x/bin/Hostx64/x64
    return shutil.which('clang-cl') or shutil.which('clang-cl', path=os.pathsep.join(beside))


def spelled(flags, like):
    "Flags as the compiler takes them: clang-cl wants a mark on those that cl.exe has not."
    return [f'/clang:{f}' for f in flags] if like == 'msvc' else list(flags)


def digest(*texts): return hashlib.sha256('\0'.join(texts).encode()).hexdigest()[:16]


def joined(texts):
    "Sources as one, without their lists of names and what they import from each other. No name may be given twice."
    lines, names = [], set()
    for text in texts:
        kept = text.splitlines()
        for node in ast.parse(text).body:
            given = [node.name] if hasattr(node, 'name') else [t.id for t in getattr(node, 'targets', []) if isinstance(t, ast.Name)]
            if isinstance(node, ast.ImportFrom) and node.level or given == ['__all__']:
                kept[node.lineno - 1:node.end_lineno] = [''] * (node.end_lineno - node.lineno + 1)
            elif names & set(given): raise ValueError(f'two kernels are called {given[0]}')
            else: names |= set(given)
        lines += kept
    return '\n'.join(lines) + '\n'


def source_of(kernel, target, compiler):
    "The kernels' sources with facts about this build appended; `fast_layers.status()` reads them."
    isa, vector, registers, _ = {**X86, **NEON, **TARGETS}[target]
    texts = [(HERE/'cs231n_lit'/'kernels'/f'{source}.py').read_text(encoding='utf8') for source in SOURCES[kernel]]
    facts = dict(ISA=isa, SOURCES=SOURCES[kernel], SOURCE_HASH=digest(*texts), COMPILER=compiler)
    text = joined(texts)
    for name, value in dict(vector_bytes=vector, registers=registers).items():
        text = re.sub(rf'^(def {name}\(\).*return )\d+', rf'\g<1>{value}', text, flags=re.M)
    return text + '\n' + ''.join(f'{k} = {v!r}\n' for k, v in facts.items())


def cython_command(module):
    "What translates `module`, from a copy of its source in the current folder, or makes the code that all modules share."
    name, directives = module.rpartition('.')[2], [a for k, v in DIRECTIVES.items() for a in ('-X', f'{k}={v}')]
    args = [f'--generate-shared={name}.c'] if module == SHARED else [f'--shared={SHARED}', *directives, '--module-name', module, f'{name}.py']
    return [sys.executable, '-m', 'cython', *args]


def write_if_changed(path, text):
    if not path.exists() or path.read_text(encoding='utf8') != text: path.write_text(text, encoding='utf8')


class build_kernels(build_ext):
    "Copies each kernel's source, translates it with Cython and compiles it; failures leave the kernel out."

    def build_extensions(self):
        self.folder = HERE/'build'/('kernels-' + digest(*EXTRA) if EXTRA else 'kernels')/Path(self.get_ext_filename('x')).name[2:].split('.')[0]
        self.failed = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.compiler_name = self.compiler_version()
            flags = {kernel: self.accepted(FLAGS + own) for kernel, own in FLAGS_OF.items()}
        except Exception as e:
            for ext in self.extensions: Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
            self.extensions, self.failed = [], [f'no usable C compiler ({e})']
            return self.report()
        asked = os.environ.get('CS231N_LIT_TARGETS', ' '.join(TARGETS)).split()
        targets = {t: self.accepted([extra]) for t, (*_, extra) in TARGETS.items() if t in asked}
        targets = {t: f for t, f in targets.items() if f or not TARGETS[t][-1]}
        self.flags = {f'_{kernel}_{t}': f + own + EXTRA for kernel, f in flags.items() for t, own in targets.items()}
        self.extensions[:] = [e for e in self.extensions if e.name == SHARED or e.name.rpartition('.')[2] in self.flags]
        self.parallel = self.parallel or min(len(self.extensions), os.cpu_count() or 1)
        super().build_extensions()
        self.report()

    def report(self):
        if not self.failed: return
        print('\n'.join(['', '*' * 78, 'cs231n_lit: compiled kernels left out:', *sorted(set(self.failed)),
              'The package works without them, on NumPy, and slower. To get them, install a C compiler (Debian, Ubuntu:',
              'apt install gcc; macOS: xcode-select --install; Windows: Visual Studio, with "C++ Clang tools for Windows")',
              'and install the package again.', '*' * 78, '']), file=sys.stderr)

    def compiler_version(self):
        "The compiler's name and version; an error where there is none."
        if self.compiler.compiler_type == 'msvc':
            self.compiler.initialize()
            if not (found := clang_cl(self.compiler.cc)): raise RuntimeError('there is no clang-cl, and MSVC alone does not do')
            self.compiler.cc = found
        command = [self.compiler.cc] if self.compiler.compiler_type == 'msvc' else self.compiler.compiler
        return subprocess.run([command[0], '--version'], check=True, capture_output=True, text=True).stdout.split('\n')[0]

    def accepted(self, groups):
        "Of groups of flags, all flags of those that the compiler takes, as it takes them."
        groups = [spelled(group, self.compiler.compiler_type) for group in groups]
        return [f for group in groups if self.accepts(group) for f in group]

    def accepts(self, flags):
        "Does the compiler take these flags?"
        with tempfile.TemporaryDirectory() as d:
            (Path(d)/'t.c').write_text('int f(int x) { return x + 1; }\n')
            if self.compiler.compiler_type == 'msvc': cmd = [self.compiler.cc, '/WX', *flags, '/c', f'{d}/t.c', f'/Fo{d}/t.obj']
            else: cmd = [*self.compiler.compiler_so, '-Werror', *flags, '-c', f'{d}/t.c', '-o', f'{d}/t.o']
            return subprocess.run(cmd, capture_output=True).returncode == 0

    def build_extension(self, ext):
        name = ext.name.rpartition('.')[2]
        built = Path(self.get_ext_fullpath(ext.name))
        kept, stamp = self.folder/built.name, self.folder/f'{name}.stamp'
        try:
            source = None if ext.name == SHARED else self.copy_source(name)
            ext.extra_compile_args = spelled(['-O1'], self.compiler.compiler_type) + EXTRA if ext.name == SHARED else self.flags[name]
            ext.extra_link_args = EXTRA
            state = digest(source.read_text(encoding='utf8') if source else '', repr(ext.extra_compile_args), repr(DIRECTIVES),
                           sys.version, self.compiler_name, version('cython'))
            if not kept.exists() or not stamp.exists() or stamp.read_text() != state:
                stamp.unlink(missing_ok=True)
                ext.sources = [self.translate(ext.name)]
                super().build_extension(ext)
                shutil.copy2(built, kept)
                stamp.write_text(state)
            elif built != kept:
                built.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(kept, built)
        except Exception as e:
            self.failed.append(f'  {ext.name}: {e}')
            built.unlink(missing_ok=True)

    def copy_source(self, name):
        path = self.folder/f'{name}.py'
        write_if_changed(path, source_of(*name[1:].rsplit('_', 1), self.compiler_name))
        return path

    def translate(self, module):
        "Runs Cython in a process of its own, so that several run at once."
        run = subprocess.run(cython_command(module), cwd=self.folder, capture_output=True, text=True)
        if run.returncode: raise RuntimeError(f'Cython failed:\n{run.stdout}{run.stderr}')
        return os.path.relpath(self.folder/(module.rpartition('.')[2] + '.c'), HERE)

    def get_outputs(self): return [o for o in super().get_outputs() if Path(o).exists()]


def copy_pages(target):
    "Put the pages with exercises into a folder, without their outputs: check, hint and `cs231n-lit exercise` read them."
    for page in sorted((HERE/'nbs').glob('[0-9]*.ipynb')):
        text = page.read_text(encoding='utf8')
        if ': a solution, and the mistakes' not in text: continue
        notebook = json.loads(text)
        for cell in notebook['cells']: cell.update({'outputs': []} if cell['cell_type'] == 'code' else {})
        target.mkdir(parents=True, exist_ok=True)
        (target/page.name).write_text(json.dumps(notebook, ensure_ascii=False), encoding='utf8')


class build_with_pages(build_py):
    def run(self):
        super().run()
        if not self.editable_mode: copy_pages(Path(self.build_lib)/'cs231n_lit'/'pages')


class sdist_with_pages(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        copy_pages(Path(base_dir)/'nbs')


parser = configparser.ConfigParser(delimiters=['='])
parser.read(HERE/'settings.ini', encoding='utf8')
cfg = parser['DEFAULT']
statuses = ['1 - Planning', '2 - Pre-Alpha', '3 - Alpha', '4 - Beta', '5 - Production/Stable', '6 - Mature', '7 - Inactive']

setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=(HERE/'README.md').read_text(encoding='utf8') if (HERE/'README.md').exists() else cfg['description'],
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    license='Apache-2.0',
    keywords=cfg['keywords'].split(),
    classifiers=[f'Development Status :: {statuses[int(cfg["status"]) - 1]}', f'Intended Audience :: {cfg["audience"]}',
                 f'Natural Language :: {cfg["language"]}', 'Programming Language :: Python :: 3', 'Programming Language :: Cython', 'Typing :: Typed'],
    python_requires=f'>={cfg["min_python"]}',
    install_requires=cfg['requirements'].split(),
    extras_require={extra: cfg[f'{extra}_requirements'].split() for extra in ('sweep', 'pages', 'dev')},
    entry_points={'console_scripts': cfg['console_scripts'].split(),
                  'nbdev': ['cs231n_lit=cs231n_lit._modidx:d']},  # lets nbdev link functions' names to their pages
    packages=find_namespace_packages(include=['cs231n_lit', 'cs231n_lit.*']),
    include_package_data=True,
    zip_safe=False,
    ext_modules=[] if PURE else [Extension(name, [], optional=True) for name in [SHARED, *(f'cs231n_lit.kernels._{k}_{t}' for k in SOURCES for t in TARGETS)]],
    cmdclass={'build_ext': build_kernels, 'build_py': build_with_pages, 'sdist': sdist_with_pages},
)
