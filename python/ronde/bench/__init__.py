"""Measures collectives, those of Ronde and of its peers, with one method. The command is `ronde bench`.

    cells      what is measured, and what its numbers mean
    values     contents of the buffers that make every result exactly predictable
    timing     how calls are timed
    worker     what each rank does with a list of cells
    peers/     one file per library: how it is started, and how each collective is called; Ronde has one
               for arrays of the host and one for those of GPUs
    rounds     short launches that alternate between the libraries
    codecs     compressors by themselves; `ronde bench compress`
    compressors    their names on a command line
    machine, table, chart    what is shown

Peers may run in environments without Ronde. So `cells`, `values`, `timing`, `worker` and `peers/` need NumPy
alone and know nothing of the rest of the package; standalone.py runs them there.
"""
