package stages
import ("testing";"os";"time";"encoding/json")
func TestDriverInit(t *testing.T){
 tree:=os.Getenv("TREE"); if tree=="" {t.Skip()}
 c:=testContext(t,json.RawMessage("{}")); c.Tree=tree; c.Log=os.Stderr; e:=int64(1750000000); c.Meta.SourceEpoch=&e
 if os.Getenv("SLOW")!="" {knownFunctions["copy_file"]=nil}
 t0:=time.Now()
 if err:=runInitramfs(c);err!=nil{t.Fatal(err)}
 t.Log(time.Since(t0))
}
