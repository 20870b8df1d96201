"""prototype"""
from __future__ import annotations
from typing import Any
import msgspec
from sizeup.models.config import Config
from sizeup.models.anatomy.defaults import filled
from sizeup.estimate.training.fsdp import *
from sizeup.estimate.training.settings import TrainSetting
from sizeup.estimate.training.build import Build, Method
from sizeup.estimate.training.tape import Tape, rounded
from sizeup.estimate.training.program import record
from sizeup.estimate.training.runs import Run
from sizeup.estimate.training.architectures import decoder, t5
from sizeup.estimate.training.architectures.t5 import T5Shape
from sizeup.estimate.training.step import *
from sizeup.estimate.training.optimizers import OPTIMIZERS
from sizeup.estimate.training.families import shape_of_config

class Result(msgspec.Struct):
    peak: int
    phase: str
    moments: Any
    static: Any
    recording: Any=None

def estimate(config, **kw):
    s=TrainSetting(**kw)
    cfg=Config(config)
    shape=shape_of_config(filled(cfg,cfg.str("model_type")))
    fsdp=s.sharding=='fsdp'
    mixed=fsdp and s.precision!='bf16'
    method=Method(item=2 if mixed else s.weight_item,train=not s.adapters,four_bit=s.method=='qlora',rank=s.lora_rank if s.adapters else 0,targets=s.lora_targets,adapter_item=4 if s.adapter_precision=='fp32' else 2)
    tape=Tape(autocast=s.autocast,accumulating=s.accumulating)
    b=Build(tape,method,s.batch,s.sequence)
    run=Run(eager=s.attention=='eager',padding=s.padding,checkpoint=(True,)*shape.layers if s.checkpointing=='full' else (),input_gradients=s.adapters and s.checkpointing=='full',divided=s.accumulating)
    rec=record(b,(t5 if isinstance(shape,T5Shape) else decoder).segments(shape,run),keeps_outputs=s.keeps_outputs)
    w=counted_weights(rec)
    if fsdp:
        pol=Policy(s.data_parallel,s.weight_item,4 if mixed else s.weight_item,s.reshard)
        w=shards(w,pol); rec=sharded(rec,pol)
    opt=OPTIMIZERS[s.optimizer]
    static=Static(weights=weight_bytes(w),buffers=sum(map(rounded,shape.buffers)),states=state_bytes(w,opt),inputs=rounded(8*s.batch*s.sequence)*(3 if s.padding else 2),gradients=gradient_bytes(w) if s.accumulating else 0)
    ms,level=moments(rec,static.total)
    ms.append(Moment("optimizer step","optimizer",level+opt.step([(x,c) for x,c in w if x.trains]),0,0,True))
    best=max(ms,key=lambda m:m.peak)
    return Result(best.peak,best.phase,ms,static,rec)
